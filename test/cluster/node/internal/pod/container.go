package pod

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fovea.dev/node/internal/launch"
	"fovea.dev/node/internal/rewrite"
	"fovea.dev/node/internal/shimapi"
)

// container is one container of a pod over all its starts. Its fields but the first four are guarded by the worker's lock.
type container struct {
	spec    corev1.Container
	init    bool
	sidecar bool
	dir     string // a run folder for each start, named by the restart count

	status  corev1.ContainerStatus
	ready   bool
	started bool
	done    bool
	lost    bool // it had run, says the API, and this machine knows nothing of it
	adopted bool // it was started by an earlier node process
	run     *launch.Run
	paths   rewrite.Rewriter // of the current run
	backoff time.Duration    // before the next start; 0: at once

	firstStarted chan struct{} // closed when it has started (its startup probe passed) for the first time
}

func newContainer(w *Worker, spec *corev1.Container, init bool, statuses []corev1.ContainerStatus) *container {
	c := &container{
		spec: *spec, init: init, dir: filepath.Join(w.dir, "containers", spec.Name), firstStarted: make(chan struct{}),
		sidecar: init && spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways,
		status:  corev1.ContainerStatus{Name: spec.Name, Image: spec.Image},
	}
	waiting := "ContainerCreating"
	if init || len(w.pod.Spec.InitContainers) > 0 {
		waiting = "PodInitializing"
	}
	c.status.State.Waiting = &corev1.ContainerStateWaiting{Reason: waiting}
	for _, old := range statuses {
		if old.Name == spec.Name {
			c.status.RestartCount, c.status.LastTerminationState, c.status.ContainerID = old.RestartCount, old.LastTerminationState, old.ContainerID
			c.lost = old.State.Running != nil || old.State.Terminated != nil
			// Of one that still runs, so that a restarted node does not take a ready pod out of its Services.
			c.ready, c.started = old.Ready, old.Started != nil && *old.Started
		}
	}
	return c
}

func (c *container) runDir(restart int32) string {
	return filepath.Join(c.dir, strconv.Itoa(int(restart)))
}

func (c *container) lostState() *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "ContainerStatusUnknown", FinishedAt: metav1.Now(), ContainerID: c.status.ContainerID,
		Message: "The node has no record of the container, which used to run: the machine was restarted, or the cluster taken down"}
}

// latestRun is the highest number of a run folder, or -1.
func latestRun(dir string) int {
	latest := -1
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			latest = max(latest, n)
		}
	}
	return latest
}

// adopt takes hold of what an earlier node left of the container: a run that lives or has ended. It is called before the worker
// runs, and all at once, so that no status is written from half of it.
func (w *Worker) adopt(c *container) {
	previouslyReady, previouslyStarted := c.ready, c.started
	c.ready, c.started = false, false
	latest := latestRun(c.dir)
	if latest < 0 {
		if c.lost && w.pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
			c.status.LastTerminationState = corev1.ContainerState{Terminated: c.lostState()}
			c.status.RestartCount++
		}
		return
	}
	c.lost = false
	c.status.RestartCount = int32(latest)
	for range latest {
		c.backoff = nextBackoff(c.backoff, w.host.Config.CrashBackoff())
	}
	run := launch.Adopt(c.runDir(int32(latest)))
	if run == nil {
		return
	}
	c.adopted = true
	w.host.CPUs.Keep(run.Container.CPUs)
	c.setRunning(w, run)
	if !run.Alive() {
		c.setEnded(w, run)
		return
	}
	c.ready, c.started = previouslyReady || c.ready, previouslyStarted || c.started
	if c.started {
		c.markFirstStarted()
	}
	w.event(corev1.EventTypeNormal, "Adopted", "Took over container %s from an earlier node process", c.spec.Name)
}

func (w *Worker) rewriter(mounts []shimapi.Mount) rewrite.Rewriter {
	if w.host.Namespaces {
		return rewrite.Rewriter{}
	}
	paths := map[string]string{}
	for _, m := range mounts {
		paths[m.Target] = m.Source
	}
	return rewrite.New(paths)
}

// setRunning makes a run the current one. The caller holds the lock.
func (c *container) setRunning(w *Worker, run *launch.Run) {
	c.run = run
	c.paths = w.rewriter(run.Container.Mounts)
	c.status.ContainerID = fmt.Sprintf("process://%s-%s-%d", w.pod.UID, c.spec.Name, c.status.RestartCount)
	c.status.ImageID = "process://" + c.spec.Image
	c.status.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(run.StartedAt)}}
	c.started = c.spec.StartupProbe == nil
	c.ready = c.started && c.spec.ReadinessProbe == nil
	if c.started {
		c.markFirstStarted()
	}
}

// markFirstStarted lets what waits for a sidecar go on. The caller holds the lock.
func (c *container) markFirstStarted() {
	if !closed(c.firstStarted) {
		close(c.firstStarted)
	}
}
