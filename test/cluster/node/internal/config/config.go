// Package config reads what the node is told: its configuration file and the file that maps images to commands.
package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// MountMode says how a pod's volumes come to where the pod looks for them.
type MountMode string

const (
	// Auto takes Namespaces where the machine allows them, else Rewrite.
	Auto MountMode = "auto"
	// Namespaces gives each container a user, mount, pid and uts namespace.
	Namespaces MountMode = "userns"
	// Rewrite replaces mount paths in command, arguments, environment, probes and exec by the machine's paths. It cannot
	// reach a path that a program has built in.
	Rewrite MountMode = "rewrite"
)

// TLS is the serving side of the kubelet API.
type TLS struct {
	CertFile     string `json:"certFile"`
	KeyFile      string `json:"keyFile"`
	ClientCAFile string `json:"clientCAFile"` // signs the API server's kubelet client certificate
}

// Config is the node's configuration file. All paths are absolute.
type Config struct {
	Name       string `json:"name"`       // the Node object; kubeconfig's user must be system:node:<name>
	Kubeconfig string `json:"kubeconfig"` //
	// ProvisionerKubeconfig is a user bound to system:persistent-volume-provisioner; absent: claims are not provisioned here.
	ProvisionerKubeconfig string    `json:"provisionerKubeconfig,omitempty"`
	Listen                string    `json:"listen"` // the kubelet API, "127.0.0.1:17850"; its address is the Node's InternalIP
	TLS                   TLS       `json:"tls"`
	StateDir              string    `json:"stateDir"`             // pods' folders, logs and volumes
	VolumesDir            string    `json:"volumesDir"`           // provisioned claims, a folder each
	ImagesFile            string    `json:"imagesFile"`           // see Images; read again when it changes
	MountMode             MountMode `json:"mountMode"`            // default auto
	PodNetwork            string    `json:"podNetwork"`           // first two bytes of the pods' addresses, default "127.70"
	OrphanSeconds         *int      `json:"orphanSeconds"`        // containers end this long after their node; 0: never; default 30
	CrashBackoffSeconds   int       `json:"crashBackoffSeconds"`  // the first CrashLoopBackOff, doubled up to 300; default 10
	VolumeRefreshSeconds  int       `json:"volumeRefreshSeconds"` // how often contents of volumes are renewed; default 10
	// Capacity overrides the machine's cpu and memory, or adds resources, so that a test can fake a larger machine.
	Capacity map[corev1.ResourceName]resource.Quantity `json:"capacity,omitempty"`
	Labels   map[string]string                         `json:"labels,omitempty"` // of the Node, beside the usual ones
}

var podNetworkForm = regexp.MustCompile(`^127\.(25[0-5]|2[0-4]\d|1?\d?\d)$`)

// Load reads and checks a configuration file; an unknown field is an error.
func Load(path string) (*Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &Config{}
	if err := yaml.UnmarshalStrict(b, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.MountMode == "" {
		c.MountMode = Auto
	}
	if c.PodNetwork == "" {
		c.PodNetwork = "127.70"
	}
	if c.OrphanSeconds == nil {
		thirty := 30
		c.OrphanSeconds = &thirty
	}
	if c.CrashBackoffSeconds == 0 {
		c.CrashBackoffSeconds = 10
	}
	if c.VolumeRefreshSeconds == 0 {
		c.VolumeRefreshSeconds = 10
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c *Config) check() error {
	var errs []error
	for field, value := range map[string]string{"name": c.Name, "kubeconfig": c.Kubeconfig, "listen": c.Listen, "stateDir": c.StateDir,
		"volumesDir": c.VolumesDir, "imagesFile": c.ImagesFile, "tls.certFile": c.TLS.CertFile, "tls.keyFile": c.TLS.KeyFile, "tls.clientCAFile": c.TLS.ClientCAFile} {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is missing", field))
		}
	}
	for field, path := range map[string]string{"stateDir": c.StateDir, "volumesDir": c.VolumesDir} {
		if path != "" && !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%s is %q; it must be an absolute path", field, path))
		}
	}
	if c.MountMode != Auto && c.MountMode != Namespaces && c.MountMode != Rewrite {
		errs = append(errs, fmt.Errorf("mountMode is %q; it must be auto, userns or rewrite", c.MountMode))
	}
	if !podNetworkForm.MatchString(c.PodNetwork) {
		errs = append(errs, fmt.Errorf("podNetwork is %q; it must be two bytes inside 127.0.0.0/8, as 127.70", c.PodNetwork))
	}
	if _, _, err := c.Address(); c.Listen != "" && err != nil {
		errs = append(errs, err)
	}
	for field, value := range map[string]int{"orphanSeconds": *c.OrphanSeconds, "crashBackoffSeconds": c.CrashBackoffSeconds, "volumeRefreshSeconds": c.VolumeRefreshSeconds} {
		if value < 0 {
			errs = append(errs, fmt.Errorf("%s is %d; it must not be negative", field, value))
		}
	}
	return errors.Join(errs...)
}

// Address splits Listen.
func (c *Config) Address() (ip string, port int32, err error) {
	host, portText, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", 0, fmt.Errorf("listen is %q: %w", c.Listen, err)
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || n == 0 || net.ParseIP(host) == nil {
		return "", 0, fmt.Errorf("listen is %q; it must be an IP address and a port, as 127.0.0.1:17850", c.Listen)
	}
	return host, int32(n), nil
}

// PodsDir holds a folder for each pod, named by its uid.
func (c *Config) PodsDir() string { return filepath.Join(c.StateDir, "pods") }

// HeartbeatFile is touched while the node lives.
func (c *Config) HeartbeatFile() string { return filepath.Join(c.StateDir, "heartbeat") }

// CrashBackoff is the first wait before a crashed container runs again.
func (c *Config) CrashBackoff() time.Duration {
	return time.Duration(c.CrashBackoffSeconds) * time.Second
}

// VolumeRefresh is the time between two looks at the sources of a pod's volumes.
func (c *Config) VolumeRefresh() time.Duration {
	return time.Duration(c.VolumeRefreshSeconds) * time.Second
}
