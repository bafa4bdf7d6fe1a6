package node

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"

	"fovea.dev/node/internal/config"
	"fovea.dev/node/internal/cpus"
	"fovea.dev/node/internal/kubeletapi"
	"fovea.dev/node/internal/launch"
	"fovea.dev/node/internal/pod"
	"fovea.dev/node/internal/provision"
)

const (
	heartbeatPeriod = time.Second
	// client-go's default of 5 requests a second makes a hundred pods wait for minutes.
	clientQPS, clientBurst = 500, 1000
)

// Lock takes the state directory for this process until it ends.
func Lock(c *config.Config) error {
	for _, dir := range []string{c.StateDir, c.PodsDir(), c.VolumesDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	file := filepath.Join(c.StateDir, "lock")
	fd, err := unix.Open(file, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s is held: another process-node runs on stateDir %s", file, c.StateDir)
	} else if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil // held as long as the descriptor is open
}

// Run is the node, until `ctx` ends. Containers go on without it.
func Run(ctx context.Context, c *config.Config, shimPath string) error {
	if err := beat(c.HeartbeatFile()); err != nil {
		return err
	}
	namespaces, err := mountMode(c, shimPath)
	if err != nil {
		return err
	}
	client, apiHost, apiPort, err := connect(c.Kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	ip, port, err := c.Address()
	if err != nil {
		return err
	}
	processors := usableCPUs()
	list := resources(c, len(processors))

	events := record.NewBroadcaster()
	events.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: client.CoreV1().Events("")})
	defer events.Shutdown()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	ownPods := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", c.Name).String()
	}))
	others := informers.NewSharedInformerFactory(client, 0)
	podInformer, serviceInformer := ownPods.Core().V1().Pods(), others.Core().V1().Services()
	services := serviceInformer.Lister()
	host := &pod.Host{
		Config: c, Namespaces: namespaces, ShimPath: shimPath, Home: os.Getenv("HOME"), Images: config.NewImages(c.ImagesFile), Client: client,
		Services: func(namespace string) []*corev1.Service {
			list, _ := services.Services(namespace).List(labels.Everything())
			return list
		},
		Events: events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: c.Name}),
		IP:     ip, APIHost: apiHost, APIPort: apiPort, Allocatable: list, CPUs: cpus.NewAllocator(processors), Changed: notify,
	}
	pods := newPods(host, client, podInformer.Lister())
	onService := func(any) { notify() }
	_, _ = serviceInformer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: onService, DeleteFunc: onService, UpdateFunc: func(_, o any) { onService(o) }})
	podInformer.Informer()
	others.Start(ctx.Done())
	ownPods.Start(ctx.Done())
	others.WaitForCacheSync(ctx.Done())
	ownPods.WaitForCacheSync(ctx.Done())
	if ctx.Err() != nil {
		return nil
	}
	// The pods there are have their workers before anything is swept, and before the informer tells of them.
	all, err := podInformer.Lister().List(labels.Everything())
	if err != nil {
		return err
	}
	keep := map[types.UID]bool{}
	for _, object := range all {
		keep[object.UID] = true
		pods.sync(ctx, object)
	}
	if err := Sweep(c.PodsDir(), keep); err != nil {
		return err
	}
	if _, err := podInformer.Informer().AddEventHandler(pods.handler(ctx)); err != nil {
		return err
	}
	go pods.keepNetwork(ctx, services, changed)
	if c.ProvisionerKubeconfig != "" {
		provisioner, _, _, err := connect(c.ProvisionerKubeconfig)
		if err != nil {
			return fmt.Errorf("provisionerKubeconfig: %w", err)
		}
		go provision.Run(ctx, provisioner, c.VolumesDir)
	}
	if err := kubeletapi.Serve(c, client, pods); err != nil {
		return err
	}
	mode := config.Rewrite
	if namespaces {
		mode = config.Namespaces
	}
	fmt.Fprintf(os.Stderr, "node %s: mount mode %s, kubelet API on %s, pods %s.0.0/16\n", c.Name, mode, c.Listen, c.PodNetwork)
	register(ctx, client, nodeObject(c, ip, port, list, mode))
	return nil
}

// beat makes the heartbeat file, and touches it from now on.
func beat(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	touch := func() { now := time.Now(); _ = os.Chtimes(path, now, now) }
	touch()
	go func() {
		for range time.Tick(heartbeatPeriod) {
			touch()
		}
	}()
	return nil
}

func mountMode(c *config.Config, shimPath string) (namespaces bool, err error) {
	if c.MountMode == config.Rewrite {
		return false, nil
	}
	err = launch.TryNamespaces(shimPath, c.StateDir, c.HeartbeatFile())
	if err == nil {
		return true, nil
	}
	if c.MountMode == config.Namespaces {
		return false, fmt.Errorf("mountMode is userns, and this user cannot have user namespaces: %w", err)
	}
	fmt.Fprintln(os.Stderr, "no user namespaces, so mount paths are rewritten in command lines and environments instead:", err)
	return false, nil
}

func connect(kubeconfig string) (client kubernetes.Interface, host, port string, err error) {
	rest, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, "", "", err
	}
	rest.QPS, rest.Burst = clientQPS, clientBurst
	u, err := url.Parse(rest.Host)
	if err != nil {
		return nil, "", "", err
	}
	client, err = kubernetes.NewForConfig(rest)
	return client, u.Hostname(), u.Port(), err
}

// usableCPUs are the processors this process may use.
func usableCPUs() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	var out []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			out = append(out, cpu)
		}
	}
	return out
}
