package pod

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fovea.dev/node/internal/launch"
	"fovea.dev/node/internal/probe"
	"fovea.dev/node/internal/shimapi"
)

const (
	// Of a termination message, as in the API: so many bytes from the file, so many lines and bytes from the log.
	messageFileBytes = 4096
	messageLogLines  = 80
	messageLogBytes  = 2048
	// A grace period that is shortened while a container ends is noticed this fast.
	gracePoll = 50 * time.Millisecond
)

// await returns when the run has ended, by itself or because the pod, the sidecar or a failed probe ends it.
func (w *Worker) await(ctx context.Context, c *container, run *launch.Run, stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unhealthy := make(chan string, 1)
	if run.Alive() {
		go w.watchHealth(ctx, c, unhealthy)
		if h := c.spec.Lifecycle; h != nil && h.PostStart != nil {
			go w.hook(ctx, c, h.PostStart, "PostStart")
		}
	}
	// A sidecar outlives the pod's own end until it is told to stop.
	terminated := w.terminated
	if c.sidecar {
		terminated = nil
	}
	select {
	case <-run.Ended:
	case <-terminated:
		w.stop(c, run, w.graceLeft)
	case <-stop:
		w.stop(c, run, w.graceLeft)
	case why := <-unhealthy:
		w.event(corev1.EventTypeNormal, "Killing", "Container %s failed %s, will be restarted", c.spec.Name, why)
		own := time.Now().Add(Grace(w.Pod()))
		w.stop(c, run, func() time.Duration { return min(time.Until(own), w.graceLeft()) })
	}
	<-run.Ended
}

// graceLeft is the time to the pod's deadline, or its whole grace period while it is not to end.
func (w *Worker) graceLeft() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deadline.IsZero() {
		return Grace(w.pod)
	}
	return time.Until(w.deadline)
}

// stop ends a run: the preStop hook, SIGTERM, the rest of the grace period, SIGKILL to all that is left.
func (w *Worker) stop(c *container, run *launch.Run, left func() time.Duration) {
	w.event(corev1.EventTypeNormal, "Killing", "Stopping container %s", c.spec.Name)
	// Without a deadline of the pod (a sidecar whose containers are done) it begins now.
	begun, grace := time.Now(), left()
	remaining := func() time.Duration { return min(left(), grace-time.Since(begun)) }
	expired := make(chan struct{})
	go func() {
		tick := time.NewTicker(gracePoll)
		defer tick.Stop()
		for remaining() > 0 {
			select {
			case <-run.Ended:
				return
			case <-tick.C:
			}
		}
		close(expired)
	}()
	if h := c.spec.Lifecycle; h != nil && h.PreStop != nil && grace > 0 {
		ctx, cancel := context.WithCancel(context.Background())
		hooked := make(chan struct{})
		go func() { w.hook(ctx, c, h.PreStop, "PreStop"); close(hooked) }()
		select {
		case <-hooked:
		case <-expired:
		case <-run.Ended:
		}
		cancel()
	}
	run.Terminate()
	select {
	case <-run.Ended:
	case <-expired:
		run.Kill()
	}
}

// hook carries out a lifecycle hook; its failure is an event.
func (w *Worker) hook(ctx context.Context, c *container, h *corev1.LifecycleHandler, name string) {
	var err error
	if h.Sleep != nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		}
	} else {
		err = probe.Check(ctx, corev1.ProbeHandler{Exec: h.Exec, HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket}, w.target(c))
	}
	if err != nil && ctx.Err() == nil {
		w.event(corev1.EventTypeWarning, "Failed"+name+"Hook", "%s of container %s: %v", name, c.spec.Name, err)
	}
}

// setEnded makes the end of a run the container's state. The caller holds the lock.
func (c *container) setEnded(w *Worker, run *launch.Run) {
	exit, known := run.Exit()
	w.host.CPUs.Give(run.Container.CPUs)
	ended := terminatedState(&c.spec, run.Dir, exit)
	if !known {
		ended.Reason, ended.Message = "ContainerStatusUnknown", "The container's supervisor was killed and left no record of its end"
	}
	ended.ContainerID = c.status.ContainerID
	c.status.State = corev1.ContainerState{Terminated: ended}
	c.ready, c.started, c.run = false, false, nil
	if exit.Cause == shimapi.CauseOrphaned || !known {
		w.disruption = "Container " + c.spec.Name + " ended because its node was away"
	}
}

func terminatedState(c *corev1.Container, dir string, exit shimapi.Exit) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: int32(exit.Code), Signal: int32(exit.Signal), Reason: "Error",
		StartedAt: metav1.NewTime(exit.StartedAt), FinishedAt: metav1.NewTime(exit.FinishedAt),
	}
	switch {
	case exit.StartError != "":
		t.Reason = "StartError"
	case exit.Cause == shimapi.CauseMemory:
		t.Reason = "OOMKilled"
	case exit.Code == 0:
		t.Reason = "Completed"
	}
	t.Message = terminationMessage(c, dir, exit.Code)
	switch {
	case exit.StartError != "":
		t.Message = exit.StartError
	case exit.Cause == shimapi.CauseOrphaned && t.Message == "":
		t.Message = "The node was away for longer than its orphanSeconds"
	}
	return t
}

// terminationMessage is what the container wrote for it, or the end of its log where it failed and its policy says so.
func terminationMessage(c *corev1.Container, dir string, code int) string {
	f, err := os.Open(filepath.Join(dir, shimapi.TerminationFile))
	if err == nil {
		defer f.Close()
		if text, _ := io.ReadAll(io.LimitReader(f, messageFileBytes)); len(text) > 0 {
			return strings.ToValidUTF8(string(text), "\uFFFD")
		}
	}
	if c.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || code == 0 {
		return ""
	}
	return strings.ToValidUTF8(logTail(filepath.Join(dir, shimapi.LogFile)), "\uFFFD")
}

// logTail is the text of the last lines of a log in CRI format.
func logTail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	// Each line has a prefix of some 45 bytes; this is enough for all that may be returned.
	const enough = messageLogBytes + messageLogLines*64
	if st, err := f.Stat(); err == nil && st.Size() > enough {
		_, _ = f.Seek(-enough, io.SeekEnd)
	}
	raw, _ := io.ReadAll(io.LimitReader(f, enough))
	var lines []string
	for line := range bytes.SplitSeq(bytes.TrimSuffix(raw, []byte("\n")), []byte("\n")) {
		if fields := bytes.SplitN(line, []byte(" "), 4); len(fields) == 4 {
			lines = append(lines, string(fields[3]))
		}
	}
	lines = lines[max(0, len(lines)-messageLogLines):]
	text := strings.Join(lines, "\n")
	return text[max(0, len(text)-messageLogBytes):]
}
