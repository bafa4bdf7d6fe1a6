package pod

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"fovea.dev/node/internal/probe"
)

// watchHealth runs a container's probes: the startup probe first, then the other two. It sends why the container must be
// restarted, at most once.
func (w *Worker) watchHealth(ctx context.Context, c *container, unhealthy chan<- string) {
	if p := c.spec.StartupProbe; p != nil {
		passed := false
		w.watchProbe(ctx, c, probe.Startup, p, func(healthy bool, why string) (goOn bool) {
			if passed = healthy; !healthy {
				unhealthy <- why
			}
			return false
		})
		if !passed {
			return
		}
		w.change(func() {
			c.started, c.ready = true, c.spec.ReadinessProbe == nil
			c.markFirstStarted()
		})
	}
	if p := c.spec.LivenessProbe; p != nil {
		go w.watchProbe(ctx, c, probe.Liveness, p, func(healthy bool, why string) (goOn bool) {
			if healthy {
				return true
			}
			select {
			case unhealthy <- why:
			default:
			}
			return false
		})
	}
	if p := c.spec.ReadinessProbe; p != nil {
		w.watchProbe(ctx, c, probe.Readiness, p, func(healthy bool, _ string) (goOn bool) {
			w.change(func() { c.ready = healthy })
			return true
		})
	}
}

// watchProbe checks until the run ends, and calls changed whenever a threshold is crossed. A pod that ends is asked for its
// readiness only, as in the kubelet.
func (w *Worker) watchProbe(ctx context.Context, c *container, kind probe.Kind, p *corev1.Probe, changed func(healthy bool, why string) (goOn bool)) {
	counter := probe.NewCounter(kind, p)
	terminated := w.terminated
	if kind == probe.Readiness {
		terminated = nil
	}
	timer := time.NewTimer(time.Duration(p.InitialDelaySeconds) * time.Second)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-terminated:
			return
		case <-timer.C:
		}
		err := w.checkOnce(ctx, c, p)
		if ctx.Err() != nil {
			return
		}
		crossed, healthy, next := counter.Count(err == nil)
		if err != nil {
			w.event(corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %v", kind, err)
		}
		if crossed && !changed(healthy, fmt.Sprintf("%s probe: %v", kind, err)) {
			return
		}
		timer.Reset(next)
	}
}

func (w *Worker) checkOnce(ctx context.Context, c *container, p *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, probe.Timeout(p))
	defer cancel()
	return probe.Check(ctx, p.ProbeHandler, w.target(c))
}

func (w *Worker) target(c *container) probe.Target {
	return probe.Target{IP: w.IP, Ports: c.spec.Ports, Exec: func(ctx context.Context, command []string) (int, string, error) {
		return w.execCaptured(ctx, c, command)
	}}
}
