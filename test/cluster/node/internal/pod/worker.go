package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fovea.dev/node/internal/environment"
	"fovea.dev/node/internal/network"
	"fovea.dev/node/internal/status"
	"fovea.dev/node/internal/volumes"
)

// apiTimeout bounds one look at the API that a container's start waits for.
const apiTimeout = 15 * time.Second

// Worker runs one pod.
type Worker struct {
	host    *Host
	dir     string
	IP      string
	Created time.Time
	// Dirty has an element when the status may have changed.
	Dirty chan struct{}
	// Done is closed when no container runs any more and none will.
	Done chan struct{}

	terminated chan struct{} // closed when the pod is to end
	volumeSet  *volumes.Set

	mu          sync.Mutex
	pod         *corev1.Pod
	containers  []*container
	volumes     map[string]volumes.Volume // nil until made
	start       metav1.Time
	hadVolumes  bool // under an earlier node, whose containers use them
	initialized bool
	finalPhase  corev1.PodPhase
	reason      string
	message     string
	disruption  string
	deadline    time.Time // for what still runs, once terminated
}

// remains is what of a pod must survive the node: kept in its folder.
type remains struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	IP        string `json:"ip"`
}

func remainsFile(dir string) string { return filepath.Join(dir, "pod.json") }

// RecordedIP is the address a pod had under an earlier node.
func RecordedIP(dir string) string {
	var r remains
	b, err := os.ReadFile(remainsFile(dir))
	if err != nil || json.Unmarshal(b, &r) != nil {
		return ""
	}
	return r.IP
}

// New makes the worker of a pod, and takes over what an earlier node left of it; Run runs it.
func New(host *Host, pod *corev1.Pod, ip string) *Worker {
	w := &Worker{
		host: host, dir: filepath.Join(host.Config.PodsDir(), string(pod.UID)), IP: ip, Created: time.Now(),
		Dirty: make(chan struct{}, 1), Done: make(chan struct{}), terminated: make(chan struct{}),
		pod: pod.DeepCopy(), start: metav1.Now(),
	}
	if pod.Status.StartTime != nil {
		w.start = *pod.Status.StartTime
	}
	w.volumeSet = volumes.NewSet(host.Client, filepath.Join(w.dir, "volumes"), w.pod, w.downward)
	for i := range pod.Spec.InitContainers {
		w.containers = append(w.containers, newContainer(w, &pod.Spec.InitContainers[i], true, pod.Status.InitContainerStatuses))
	}
	for i := range pod.Spec.Containers {
		w.containers = append(w.containers, newContainer(w, &pod.Spec.Containers[i], false, pod.Status.ContainerStatuses))
	}
	for _, c := range w.containers {
		w.adopt(c)
		// Containers start only when the init containers are done.
		w.initialized = w.initialized || (!c.init && c.adopted)
		w.hadVolumes = w.hadVolumes || c.adopted
	}
	return w
}

// Pod is the pod as the API has it.
func (w *Worker) Pod() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// Update takes the pod as the API has it now. The status is flushed again, as somebody else may have overwritten it.
func (w *Worker) Update(pod *corev1.Pod) {
	w.change(func() { w.pod = pod.DeepCopy() })
	if pod.DeletionTimestamp != nil {
		w.Terminate(Grace(pod))
	}
}

func (w *Worker) change(f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	select {
	case w.Dirty <- struct{}{}:
	default:
	}
	w.host.Changed()
}

func (w *Worker) event(kind, reason, format string, args ...any) {
	w.host.Events.Eventf(w.Pod(), kind, reason, format, args...)
}

// Grace is how long the containers of a pod may take to end.
func Grace(pod *corev1.Pod) time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		seconds = *pod.Spec.TerminationGracePeriodSeconds
	}
	if pod.DeletionGracePeriodSeconds != nil {
		seconds = *pod.DeletionGracePeriodSeconds
	}
	return time.Duration(seconds) * time.Second
}

// Terminate begins the pod's end, or brings it nearer. It does not wait.
func (w *Worker) Terminate(grace time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	deadline := time.Now().Add(grace)
	if w.deadline.IsZero() {
		w.deadline = deadline
		close(w.terminated)
	} else if deadline.Before(w.deadline) {
		w.deadline = deadline
	}
}

func (w *Worker) terminating() bool { return closed(w.terminated) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// pause waits, and returns false if the pod is to end meanwhile.
func (w *Worker) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.terminated:
		return false
	case <-t.C:
		return true
	}
}

// Run runs the pod to its end.
func (w *Worker) Run(ctx context.Context) {
	defer close(w.Done)
	defer w.change(w.finish)
	if err := w.recordPod(); err != nil {
		w.event(corev1.EventTypeWarning, "FailedCreatePodSandBox", "%v", err)
	}
	w.change(func() {})
	stopDeadline := w.watchDeadline()
	defer stopDeadline()
	if w.lost() || !w.makeVolumes(ctx) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go w.refreshVolumes(ctx)

	sidecars := &sidecars{}
	defer sidecars.stopAll()
	if !w.runInitContainers(ctx, sidecars) || w.terminating() {
		return
	}
	w.change(func() {
		w.initialized = true
		for _, c := range w.containers {
			if !c.init && c.status.State.Waiting != nil {
				c.status.State.Waiting.Reason = "ContainerCreating"
			}
		}
	})
	policy := w.Pod().Spec.RestartPolicy
	var all sync.WaitGroup
	for _, c := range w.containers {
		if !c.init {
			all.Go(func() { w.supervise(ctx, c, policy, nil) })
		}
	}
	all.Wait()
}

func (w *Worker) recordPod() error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return err
	}
	pod := w.Pod()
	b, err := json.Marshal(remains{pod.Namespace, pod.Name, w.IP})
	if err != nil {
		return err
	}
	aside := remainsFile(w.dir) + ".new"
	if err := os.WriteFile(aside, b, 0o644); err != nil {
		return err
	}
	return os.Rename(aside, remainsFile(w.dir))
}

// watchDeadline fails the pod when it has been active for its activeDeadlineSeconds.
func (w *Worker) watchDeadline() (stop func()) {
	pod := w.Pod()
	if pod.Spec.ActiveDeadlineSeconds == nil {
		return func() {}
	}
	left := time.Until(w.start.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second))
	timer := time.AfterFunc(left, func() {
		message := "Pod was active on the node longer than the specified deadline"
		w.change(func() { w.finalPhase, w.reason, w.message = corev1.PodFailed, "DeadlineExceeded", message })
		w.event(corev1.EventTypeNormal, "DeadlineExceeded", "%s", message)
		w.Terminate(Grace(pod))
	})
	return func() { timer.Stop() }
}

// lost ends a pod that may not run again and whose containers are gone without a trace, as after a restart of the machine. It is
// marked as disrupted, which a Job's podFailurePolicy can ignore.
func (w *Worker) lost() bool {
	if w.Pod().Spec.RestartPolicy != corev1.RestartPolicyNever {
		return false
	}
	for _, c := range w.containers {
		if c.lost && !c.sidecar {
			w.change(func() {
				w.disruption = "The node lost the pod's containers"
				for _, c := range w.containers {
					c.done = true
					if c.lost {
						c.status.State = corev1.ContainerState{Terminated: c.lostState()}
					}
				}
				w.finalPhase = corev1.PodFailed
			})
			return true
		}
	}
	return false
}

// makeVolumes tries until it succeeds; false if the pod is to end first.
func (w *Worker) makeVolumes(ctx context.Context) bool {
	for attempt := 0; ; attempt++ {
		made, err := func() (map[string]volumes.Volume, error) {
			ctx, cancel := context.WithTimeout(ctx, apiTimeout)
			defer cancel()
			return w.volumeSet.SetUp(ctx)
		}()
		if err == nil {
			w.change(func() { w.volumes = made })
			return true
		}
		// The first tries may only come too early: the node authorizer learns of a pod's objects a moment after its binding.
		if attempt%10 == 3 {
			w.event(corev1.EventTypeWarning, "FailedMount", "%v", err)
		}
		if !w.pause(min(time.Duration(attempt+1)*100*time.Millisecond, 5*time.Second)) {
			return false
		}
	}
}

func (w *Worker) refreshVolumes(ctx context.Context) {
	tick := time.NewTicker(w.host.Config.VolumeRefresh())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.terminated:
			return
		case <-tick.C:
			if err := w.volumeSet.Refresh(ctx); err != nil && ctx.Err() == nil {
				w.event(corev1.EventTypeWarning, "FailedMount", "%v", err)
			}
		}
	}
}

// runInitContainers runs them one after the other, and leaves the sidecars among them running. False if one failed for good.
func (w *Worker) runInitContainers(ctx context.Context, sidecars *sidecars) bool {
	policy := w.Pod().Spec.RestartPolicy
	if policy == corev1.RestartPolicyAlways {
		policy = corev1.RestartPolicyOnFailure
	}
	for _, c := range w.containers {
		if !c.init {
			continue
		}
		if w.terminating() {
			return false
		}
		if c.sidecar {
			sidecars.start(func(stop <-chan struct{}) { w.supervise(ctx, c, corev1.RestartPolicyAlways, stop) })
			select {
			case <-c.firstStarted:
			case <-w.terminated:
				return false
			}
			continue
		}
		w.supervise(ctx, c, policy, nil)
		w.mu.Lock()
		t := c.status.State.Terminated
		w.mu.Unlock()
		if t == nil || t.ExitCode != 0 {
			return false
		}
	}
	return true
}

// sidecars end after the containers they stand beside, last started first.
type sidecars struct {
	stops []chan struct{}
	dones []chan struct{}
}

func (s *sidecars) start(run func(stop <-chan struct{})) {
	stop, done := make(chan struct{}), make(chan struct{})
	s.stops, s.dones = append(s.stops, stop), append(s.dones, done)
	go func() { run(stop); close(done) }()
}

func (s *sidecars) stopAll() {
	for i := len(s.stops) - 1; i >= 0; i-- {
		close(s.stops[i])
		<-s.dones[i]
	}
}

// finish decides the final phase. The caller holds the lock.
func (w *Worker) finish() {
	if w.finalPhase == "" {
		w.finalPhase = status.FinalPhase(w.snapshot().Containers)
	}
}

// snapshot is what status is worked out from. The caller holds the lock.
func (w *Worker) snapshot() *status.Pod {
	p := &status.Pod{
		Pod: w.pod, IP: w.IP, HostIP: w.host.IP, StartTime: w.start, VolumesReady: w.volumes != nil || w.hadVolumes, Initialized: w.initialized,
		Terminating: w.terminating(), FinalPhase: w.finalPhase, Reason: w.reason, Message: w.message, DisruptionWhy: w.disruption,
	}
	for _, c := range w.containers {
		p.Containers = append(p.Containers, status.Container{Init: c.init, Sidecar: c.sidecar, Status: c.status, Ready: c.ready, Started: c.started, Done: c.done})
	}
	return p
}

// Status is the whole status of the pod, over the one the API has now.
func (w *Worker) Status(base *corev1.PodStatus) corev1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return status.Compute(w.snapshot(), base, metav1.Now())
}

// Endpoint is the pod as Services see it; live is false of one that has ended.
func (w *Worker) Endpoint() (e network.Endpoint, live bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return network.Endpoint{Pod: w.pod, IP: w.IP, Ready: status.Ready(w.snapshot())}, w.finalPhase == ""
}

func (w *Worker) downward() *environment.Downward {
	return &environment.Downward{Pod: w.Pod(), PodIP: w.IP, HostIP: w.host.IP, Node: w.host.Allocatable}
}

func (w *Worker) hostsFile() string { return filepath.Join(w.dir, "hosts") }

// WriteHosts writes the pod's /etc/hosts in place: it is a bind mount, and a renamed file would not be seen through it.
func (w *Worker) WriteHosts(names network.Names) error {
	pod := w.Pod()
	text := network.HostsFile(pod, w.IP, network.Hostname(pod), names)
	if old, err := os.ReadFile(w.hostsFile()); err == nil && string(old) == text {
		return nil
	}
	if closed(w.Done) {
		return nil
	}
	if err := os.WriteFile(w.hostsFile(), []byte(text), 0o644); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("hosts file of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// RemoveFolder removes what the pod left on this machine.
func (w *Worker) RemoveFolder() error { return os.RemoveAll(w.dir) }
