package pod

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fovea.dev/node/internal/config"
	"fovea.dev/node/internal/environment"
	"fovea.dev/node/internal/launch"
	"fovea.dev/node/internal/network"
	"fovea.dev/node/internal/shimapi"
)

// nonRootID is what a container is called that must not run as root and names no user, where this process is root.
const nonRootID = 65532

// serviceAccountDir is where in-cluster clients look for their token.
const serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// startPatiently starts a container, and waits for what it needs. It returns nil if the pod is to end first, or if the start
// failed for good, which is then the container's state.
func (w *Worker) startPatiently(ctx context.Context, c *container, stop <-chan struct{}) *launch.Run {
	for {
		image, ok := w.findImage(c, stop)
		if !ok {
			return nil
		}
		run, err := w.startOnce(ctx, c, image)
		switch {
		case err == nil:
			w.change(func() { c.setRunning(w, run) })
			w.event(corev1.EventTypeNormal, "Started", "Started container %s", c.spec.Name)
			return run
		case !isConfigError(err):
			w.recordStartError(c, err)
			return nil
		}
		w.wait(c, "CreateContainerConfigError", err.Error())
		w.event(corev1.EventTypeWarning, "Failed", "Error: %v", err)
		if !w.pause(configRetry) || closed(stop) {
			return nil
		}
	}
}

// startOnce starts the container in a new run folder.
func (w *Worker) startOnce(ctx context.Context, c *container, image config.Image) (*launch.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	pod := w.Pod()
	ids, err := userOf(pod, &c.spec)
	if err != nil {
		return nil, configError{err}
	}
	services := environment.APIServerVariables(w.host.APIHost, w.host.APIPort)
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		maps.Copy(services, environment.ServiceVariables(w.host.Services(pod.Namespace)))
	}
	env, err := environment.Build(ctx, w.host.Client, w.downward(), &c.spec, services)
	if err != nil {
		return nil, configError{err}
	}
	w.mu.Lock()
	restart := c.status.RestartCount
	w.mu.Unlock()
	dir := c.runDir(restart)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if restart > 1 { // one earlier run is kept, for its log
		if err := os.RemoveAll(c.runDir(restart - 2)); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	described, err := w.describe(pod, c, image, env, dir)
	if err != nil {
		return nil, err
	}
	if limit, ok := c.spec.Resources.Limits[corev1.ResourceCPU]; ok {
		described.CPUs = w.host.CPUs.Take(int((limit.MilliValue() + 999) / 1000))
	}
	run, err := launch.Start(w.host.ShimPath, dir, *described, ids)
	if err != nil {
		w.host.CPUs.Give(described.CPUs)
		return nil, fmt.Errorf("failed to start container %q: %w", c.spec.Name, err)
	}
	return run, nil
}

// describe puts together what the shim runs.
func (w *Worker) describe(pod *corev1.Pod, c *container, image config.Image, env map[string]string, dir string) (*shimapi.Container, error) {
	all := map[string]string{"PATH": os.Getenv("PATH"), "HOME": w.host.Home, "HOSTNAME": network.Hostname(pod), "LANG": "C.UTF-8"}
	maps.Copy(all, image.Env)
	maps.Copy(all, env)
	argv := commandLine(image, &c.spec, all)
	if len(argv) == 0 {
		return nil, fmt.Errorf("no command: neither the container nor the image %q has one", c.spec.Image)
	}
	cwd := "/"
	if image.Workdir != "" {
		cwd = image.Workdir
	}
	if c.spec.WorkingDir != "" {
		cwd = c.spec.WorkingDir
	}
	mounts, err := w.mounts(pod, c, image, all, dir)
	if err != nil {
		return nil, err
	}
	if !w.host.Namespaces {
		if err := w.addKubeconfig(dir, mounts, all); err != nil {
			return nil, err
		}
	}
	paths := w.rewriter(mounts)
	for name, value := range all {
		all[name] = paths.Path(value)
	}
	described := &shimapi.Container{
		Argv: paths.All(argv), Cwd: paths.Path(cwd), Hostname: network.Hostname(pod), Namespaces: w.host.Namespaces, Mounts: mounts,
		Heartbeat: w.host.Config.HeartbeatFile(), OrphanSeconds: *w.host.Config.OrphanSeconds,
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		described.Env = append(described.Env, name+"="+all[name])
	}
	if limit, ok := c.spec.Resources.Limits[corev1.ResourceMemory]; ok {
		described.MemoryLimitBytes = limit.Value()
	}
	return described, nil
}

// commandLine follows the table of
// https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
func commandLine(image config.Image, c *corev1.Container, env map[string]string) []string {
	command, args := image.Command, image.Args
	if len(c.Command) > 0 {
		command, args = environment.ExpandAll(c.Command, env), nil
	}
	if len(c.Args) > 0 {
		args = environment.ExpandAll(c.Args, env)
	}
	return slices.Concat(command, args)
}

// mounts lists what is shown where; of two at one path the later wins.
func (w *Worker) mounts(pod *corev1.Pod, c *container, image config.Image, env map[string]string, dir string) ([]shimapi.Mount, error) {
	var mounts []shimapi.Mount
	if w.host.Namespaces {
		tmp := filepath.Join(dir, "tmp")
		if err := os.MkdirAll(tmp, 0o777); err != nil {
			return nil, err
		}
		if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil {
			return nil, err
		}
		mounts = append(mounts, shimapi.Mount{Source: tmp, Target: "/tmp"})
		for _, kept := range foldersBelowTmp(image) {
			mounts = append(mounts, shimapi.Mount{Source: kept, Target: kept})
		}
		if !pod.Spec.HostNetwork {
			if _, err := os.Stat(w.hostsFile()); err != nil {
				if err := w.WriteHosts(nil); err != nil {
					return nil, err
				}
			}
			mounts = append(mounts, shimapi.Mount{Source: w.hostsFile(), Target: "/etc/hosts"})
		}
	}
	for target, source := range image.Binds {
		mounts = append(mounts, shimapi.Mount{Source: source, Target: target})
	}
	termination := filepath.Join(dir, shimapi.TerminationFile)
	if err := os.WriteFile(termination, nil, 0o666); err != nil {
		return nil, err
	}
	mounts = append(mounts, shimapi.Mount{Source: termination, Target: terminationPath(&c.spec)})
	for i := range c.spec.VolumeMounts {
		m, err := w.volumeMount(&c.spec.VolumeMounts[i], env)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func (w *Worker) volumeMount(m *corev1.VolumeMount, env map[string]string) (shimapi.Mount, error) {
	w.mu.Lock()
	volume, ok := w.volumes[m.Name]
	w.mu.Unlock()
	if !ok {
		return shimapi.Mount{}, fmt.Errorf("volumeMounts: there is no volume %q", m.Name)
	}
	source := volume.Path
	sub := m.SubPath
	if m.SubPathExpr != "" {
		sub = environment.Expand(m.SubPathExpr, env)
	}
	if sub != "" {
		if !filepath.IsLocal(sub) {
			return shimapi.Mount{}, fmt.Errorf("volumeMounts %s: subPath %q leaves the volume", m.Name, sub)
		}
		source = filepath.Join(source, sub)
		if _, err := os.Stat(source); os.IsNotExist(err) {
			if err := os.MkdirAll(source, 0o755); err != nil {
				return shimapi.Mount{}, err
			}
		}
	}
	target := m.MountPath
	if !filepath.IsAbs(target) {
		target = "/" + target
	}
	return shimapi.Mount{Source: source, Target: target, ReadOnly: m.ReadOnly || volume.ReadOnly}, nil
}

// foldersBelowTmp are the top folders of /tmp that the image itself lies in: a checkout there must not be hidden by the
// container's own /tmp.
func foldersBelowTmp(image config.Image) []string {
	words := slices.Concat(image.Command, image.Args, []string{image.Workdir}, slices.Collect(maps.Values(image.Env)))
	var out []string
	for _, word := range words {
		for part := range strings.SplitSeq(word, ":") {
			rest, ok := strings.CutPrefix(part, "/tmp/")
			if !ok {
				continue
			}
			top, _, _ := strings.Cut(rest, "/")
			folder := "/tmp/" + top
			if st, err := os.Stat(folder); err == nil && st.IsDir() && !slices.Contains(out, folder) {
				out = append(out, folder)
			}
		}
	}
	return out
}

func terminationPath(c *corev1.Container) string {
	if c.TerminationMessagePath == "" {
		return corev1.TerminationMessagePathDefault
	}
	return c.TerminationMessagePath
}

// userOf says what the container's user is called inside.
func userOf(pod *corev1.Pod, c *corev1.Container) (launch.IDs, error) {
	ids := launch.IDs{User: os.Getuid(), Group: os.Getgid()}
	named, nonRoot := false, false
	if s := pod.Spec.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			ids.User, named = int(*s.RunAsUser), true
		}
		if s.RunAsGroup != nil {
			ids.Group = int(*s.RunAsGroup)
		}
		nonRoot = s.RunAsNonRoot != nil && *s.RunAsNonRoot
	}
	if s := c.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			ids.User, named = int(*s.RunAsUser), true
		}
		if s.RunAsGroup != nil {
			ids.Group = int(*s.RunAsGroup)
		}
		if s.RunAsNonRoot != nil {
			nonRoot = *s.RunAsNonRoot
		}
	}
	if nonRoot && ids.User == 0 {
		if named {
			return ids, fmt.Errorf("container %s: runAsNonRoot is true and runAsUser is 0", c.Name)
		}
		ids.User = nonRootID
	}
	return ids, nil
}

// addKubeconfig stands in, where no path can be mounted, for the token at its well-known place: clients that take the default
// configuration read KUBECONFIG first.
func (w *Worker) addKubeconfig(dir string, mounts []shimapi.Mount, env map[string]string) error {
	if env["KUBECONFIG"] != "" {
		return nil
	}
	for _, m := range mounts {
		if filepath.Clean(m.Target) != serviceAccountDir {
			continue
		}
		text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
  - name: cluster
    cluster: {server: "https://%s:%s", certificate-authority: %q}
users:
  - name: pod
    user: {tokenFile: %q}
contexts:
  - name: pod
    context: {cluster: cluster, user: pod, namespace: %q}
current-context: pod
`, w.host.APIHost, w.host.APIPort, filepath.Join(m.Source, "ca.crt"), filepath.Join(m.Source, "token"), w.Pod().Namespace)
		env["KUBECONFIG"] = filepath.Join(dir, "kubeconfig")
		return os.WriteFile(env["KUBECONFIG"], []byte(text), 0o600)
	}
	return nil
}
