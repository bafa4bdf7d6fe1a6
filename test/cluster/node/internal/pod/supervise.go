package pod

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fovea.dev/node/internal/config"
)

const (
	// The longest wait before a start, and how long a container must have run for its back-off to begin anew, as in the kubelet.
	maxBackoff   = 5 * time.Minute
	backoffReset = 10 * time.Minute
	// How long an image that is not known stays ErrImagePull before it becomes ImagePullBackOff, and how often the images file is
	// looked at meanwhile.
	pullErrorShown  = time.Second
	imagePollPeriod = 500 * time.Millisecond
	configRetry     = 2 * time.Second
)

// nextBackoff doubles the wait from `first`; the first restart of all is immediate.
func nextBackoff(now, first time.Duration) time.Duration {
	if now == 0 {
		return first
	}
	return min(now*2, maxBackoff)
}

// restarts says whether a container that exited with `code` runs again.
func restarts(policy corev1.RestartPolicy, code int32) bool {
	return policy == corev1.RestartPolicyAlways || (policy == corev1.RestartPolicyOnFailure && code != 0)
}

// supervise runs a container until it must not run any more: by its policy, by the pod's end, or by stop (of a sidecar).
func (w *Worker) supervise(ctx context.Context, c *container, policy corev1.RestartPolicy, stop <-chan struct{}) {
	defer w.change(func() { c.done, c.ready = true, false })
	for {
		w.mu.Lock()
		run, ended := c.run, c.status.State.Terminated // adopted, the first time round
		w.mu.Unlock()
		if run == nil && ended == nil {
			if w.terminating() || closed(stop) {
				return
			}
			run = w.startPatiently(ctx, c, stop)
		}
		if run != nil {
			w.await(ctx, c, run, stop)
			w.change(func() { c.setEnded(w, run) })
		}
		if ended = c.exitState(w); ended == nil { // it was never started
			return
		}
		if w.terminating() || closed(stop) || !restarts(policy, ended.ExitCode) {
			return
		}
		if !w.backOff(c, ended, stop) {
			return
		}
		w.change(func() {
			c.status.LastTerminationState = corev1.ContainerState{Terminated: ended}
			c.status.RestartCount++
			c.status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
		})
	}
}

func (c *container) exitState(w *Worker) *corev1.ContainerStateTerminated {
	w.mu.Lock()
	defer w.mu.Unlock()
	return c.status.State.Terminated
}

// backOff waits before the next start; false if there is to be none.
func (w *Worker) backOff(c *container, ended *corev1.ContainerStateTerminated, stop <-chan struct{}) bool {
	if ended.FinishedAt.Sub(ended.StartedAt.Time) > backoffReset {
		c.backoff = 0
	}
	wait := c.backoff
	c.backoff = nextBackoff(c.backoff, w.host.Config.CrashBackoff())
	if wait == 0 {
		return true
	}
	pod := w.Pod()
	w.change(func() {
		c.status.LastTerminationState = corev1.ContainerState{Terminated: ended}
		c.status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff",
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", wait, c.spec.Name, pod.Name, pod.Namespace, pod.UID)}}
	})
	w.event(corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)", c.spec.Name, pod.Name, pod.Namespace, pod.UID)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.terminated:
	case <-stop:
	}
	w.change(func() { c.status.State = corev1.ContainerState{Terminated: ended} })
	return false
}

func (w *Worker) wait(c *container, reason, message string) {
	w.change(func() {
		c.status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	})
}

// configError is something that the container names and that is not there: it may appear.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// findImage returns the container's image, and waits for it while it is not known; ok is false if the pod ends first.
func (w *Worker) findImage(c *container, stop <-chan struct{}) (image config.Image, ok bool) {
	backoff := 10 * time.Second
	for {
		image, err := w.host.Images.Find(c.spec.Image)
		if err == nil {
			return image, true
		}
		if c.spec.ImagePullPolicy == corev1.PullNever {
			w.wait(c, "ErrImageNeverPull", err.Error())
		} else {
			w.wait(c, "ErrImagePull", err.Error())
			w.event(corev1.EventTypeWarning, "Failed", "Failed to pull image %q: %v", c.spec.Image, err)
			if !w.pause(pullErrorShown) || closed(stop) {
				return config.Image{}, false
			}
			w.wait(c, "ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: %v", c.spec.Image, err))
			w.event(corev1.EventTypeNormal, "BackOff", "Back-off pulling image %q", c.spec.Image)
		}
		for until := time.Now().Add(backoff); time.Now().Before(until); {
			if !w.pause(imagePollPeriod) || closed(stop) {
				return config.Image{}, false
			}
			if image, err := w.host.Images.Find(c.spec.Image); err == nil {
				return image, true
			}
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// recordStartError makes a start that failed for good look like a container that ended at once.
func (w *Worker) recordStartError(c *container, err error) {
	now := metav1.Now()
	w.change(func() {
		c.status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: 128, Reason: "StartError", Message: err.Error(), StartedAt: now, FinishedAt: now}}
	})
	w.event(corev1.EventTypeWarning, "Failed", "Error: %v", err)
}

func isConfigError(err error) bool {
	var e configError
	return errors.As(err, &e)
}
