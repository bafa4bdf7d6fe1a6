// Package volumes makes a pod's volumes: folders of this machine that are filled from API objects, or claimed.
package volumes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"fovea.dev/node/internal/environment"
)

// Set is the volumes of one pod.
type Set struct {
	client   kubernetes.Interface
	dir      string
	pod      *corev1.Pod
	downward func() *environment.Downward
	tokens   map[string]*token
}

// NewSet keeps the volumes of `pod` in folders below `dir`. downward is asked each time, as labels and annotations change.
func NewSet(client kubernetes.Interface, dir string, pod *corev1.Pod, downward func() *environment.Downward) *Set {
	return &Set{client: client, dir: dir, pod: pod, downward: downward, tokens: map[string]*token{}}
}

// Volume is where a volume lies on this machine.
type Volume struct {
	Path string
	// ReadOnly is true of what is made of API objects, and of claims mounted so.
	ReadOnly bool
}

// SetUp makes all volumes, and returns them by name. It is safe to repeat.
func (s *Set) SetUp(ctx context.Context) (map[string]Volume, error) {
	out := map[string]Volume{}
	for i := range s.pod.Spec.Volumes {
		v := &s.pod.Spec.Volumes[i]
		volume, err := s.setUp(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
		}
		out[v.Name] = volume
	}
	return out, nil
}

// Refresh renews the contents of the volumes that are made of API objects, and tokens that grow old.
func (s *Set) Refresh(ctx context.Context) error {
	for i := range s.pod.Spec.Volumes {
		v := &s.pod.Spec.Volumes[i]
		if _, err := s.project(ctx, v); err != nil {
			return fmt.Errorf("renewing volume %q: %w", v.Name, err)
		}
	}
	return nil
}

func (s *Set) setUp(ctx context.Context, v *corev1.Volume) (Volume, error) {
	dir := s.folder(v)
	if projected, err := s.project(ctx, v); projected || err != nil {
		return Volume{Path: dir, ReadOnly: true}, err
	}
	switch {
	case v.EmptyDir != nil:
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return Volume{}, err
		}
		return Volume{Path: dir}, os.Chmod(dir, 0o777)
	case v.HostPath != nil:
		return Volume{Path: v.HostPath.Path}, hostPath(v.HostPath)
	case v.PersistentVolumeClaim != nil:
		path, err := s.claim(ctx, v.PersistentVolumeClaim.ClaimName)
		return Volume{Path: path, ReadOnly: v.PersistentVolumeClaim.ReadOnly}, err
	case v.Ephemeral != nil:
		path, err := s.claim(ctx, s.pod.Name+"-"+v.Name)
		return Volume{Path: path}, err
	}
	return Volume{}, fmt.Errorf("this kind of volume is not supported; emptyDir, configMap, secret, projected, downwardAPI, persistentVolumeClaim, ephemeral and hostPath are")
}

func (s *Set) folder(v *corev1.Volume) string { return filepath.Join(s.dir, v.Name) }

// project writes a volume that is made of API objects; made is false for any other.
func (s *Set) project(ctx context.Context, v *corev1.Volume) (made bool, err error) {
	files := map[string]content{}
	switch {
	case v.ConfigMap != nil:
		err = s.addConfigMap(ctx, v.ConfigMap.Name, v.ConfigMap.Items, fileMode(v.ConfigMap.DefaultMode, 0o644), v.ConfigMap.Optional, files)
	case v.Secret != nil:
		err = s.addSecret(ctx, v.Secret.SecretName, v.Secret.Items, fileMode(v.Secret.DefaultMode, 0o644), v.Secret.Optional, files)
	case v.DownwardAPI != nil:
		err = s.addDownward(v.DownwardAPI.Items, fileMode(v.DownwardAPI.DefaultMode, 0o644), files)
	case v.Projected != nil:
		mode := fileMode(v.Projected.DefaultMode, 0o644)
		for i := range v.Projected.Sources {
			if err = s.addProjection(ctx, v.Name, &v.Projected.Sources[i], mode, files); err != nil {
				break
			}
		}
	default:
		return false, nil
	}
	if err != nil {
		return true, err
	}
	return true, writeAtomically(s.folder(v), files)
}

func (s *Set) addProjection(ctx context.Context, volume string, p *corev1.VolumeProjection, mode os.FileMode, files map[string]content) error {
	switch {
	case p.ConfigMap != nil:
		return s.addConfigMap(ctx, p.ConfigMap.Name, p.ConfigMap.Items, mode, p.ConfigMap.Optional, files)
	case p.Secret != nil:
		return s.addSecret(ctx, p.Secret.Name, p.Secret.Items, mode, p.Secret.Optional, files)
	case p.DownwardAPI != nil:
		return s.addDownward(p.DownwardAPI.Items, mode, files)
	case p.ServiceAccountToken != nil:
		return s.addToken(ctx, volume, p.ServiceAccountToken, files)
	}
	return fmt.Errorf("this kind of projection is not supported; configMap, secret, downwardAPI and serviceAccountToken are")
}

func hostPath(v *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if v.Type != nil {
		kind = *v.Type
	}
	st, err := os.Stat(v.Path)
	switch kind {
	case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
		if os.IsNotExist(err) { // container runtimes make a missing folder for an untyped one too
			return os.MkdirAll(v.Path, 0o755)
		}
	case corev1.HostPathFileOrCreate:
		if os.IsNotExist(err) {
			return os.WriteFile(v.Path, nil, 0o644)
		}
	case corev1.HostPathDirectory:
		if err == nil && !st.IsDir() {
			return fmt.Errorf("hostPath type check failed: %s is not a directory", v.Path)
		}
	case corev1.HostPathFile:
		if err == nil && !st.Mode().IsRegular() {
			return fmt.Errorf("hostPath type check failed: %s is not a file", v.Path)
		}
	default:
		return fmt.Errorf("hostPath type %s is not supported", kind)
	}
	return err
}

// claim is the folder of a bound claim.
func (s *Set) claim(ctx context.Context, name string) (string, error) {
	claim, err := s.client.CoreV1().PersistentVolumeClaims(s.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" {
		return "", fmt.Errorf("persistentVolumeClaim %s is not bound", name)
	}
	pv, err := s.client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	switch {
	case pv.Spec.HostPath != nil:
		return pv.Spec.HostPath.Path, hostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		_, err := os.Stat(pv.Spec.Local.Path)
		return pv.Spec.Local.Path, err
	}
	return "", fmt.Errorf("persistentVolume %s is neither hostPath nor local", pv.Name)
}
