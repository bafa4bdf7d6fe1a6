// Package status works out a pod's status from what its containers do.
package status

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Container is what is known of one container.
type Container struct {
	Init    bool
	Sidecar bool // an init container that keeps running
	// Status has State, LastTerminationState, RestartCount and the identifiers; Ready and Started are worked out here.
	Status  corev1.ContainerStatus
	Ready   bool // the readiness probe, or there is none
	Started bool // the startup probe, or there is none
	Done    bool // it will not run again
}

// Pod is what is known of one pod.
type Pod struct {
	Pod           *corev1.Pod // metadata and spec
	IP, HostIP    string
	StartTime     metav1.Time
	Containers    []Container // init containers first, in the order of the spec
	VolumesReady  bool
	Initialized   bool // every init container has done its part
	Terminating   bool
	FinalPhase    corev1.PodPhase // once decided; shown when no container runs any more
	Reason        string
	Message       string
	DisruptionWhy string // set where the pod ended because its node lost it
}

// decisive are the conditions that this node writes; all others belong to somebody else and are kept.
var decisive = map[corev1.PodConditionType]bool{
	corev1.PodScheduled: true, corev1.PodReadyToStartContainers: true, corev1.PodInitialized: true,
	corev1.ContainersReady: true, corev1.PodReady: true,
}

// containersReady says whether every container (but plain init containers) runs and is ready.
func containersReady(p *Pod) (ready bool, not []string) {
	ready = p.Initialized
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Init && !c.Sidecar {
			continue
		}
		if !c.Ready || c.Status.State.Running == nil {
			ready = false
			not = append(not, c.Status.Name)
		}
	}
	return ready, not
}

func gatesOpen(pod *corev1.Pod, conditions []corev1.PodCondition) bool {
	for _, gate := range pod.Spec.ReadinessGates {
		open := false
		for _, c := range conditions {
			open = open || (c.Type == gate.ConditionType && c.Status == corev1.ConditionTrue)
		}
		if !open {
			return false
		}
	}
	return true
}

// Ready says whether the pod takes traffic.
func Ready(p *Pod) bool {
	ready, _ := containersReady(p)
	return ready && !p.Terminating && p.FinalPhase == "" && gatesOpen(p.Pod, p.Pod.Status.Conditions)
}

// Compute returns the whole status. base is the one now in the API: foreign conditions and unchanged transition times are kept.
func Compute(p *Pod, base *corev1.PodStatus, now metav1.Time) corev1.PodStatus {
	s := *base.DeepCopy()
	s.ObservedGeneration = p.Pod.Generation
	s.StartTime = &p.StartTime
	s.HostIP, s.HostIPs = p.HostIP, []corev1.HostIP{{IP: p.HostIP}}
	s.PodIP, s.PodIPs = p.IP, []corev1.PodIP{{IP: p.IP}}
	s.InitContainerStatuses, s.ContainerStatuses = nil, nil
	for i := range p.Containers {
		c := &p.Containers[i]
		one := containerStatus(c, p.Terminating)
		if c.Init {
			s.InitContainerStatuses = append(s.InitContainerStatuses, one)
		} else {
			s.ContainerStatuses = append(s.ContainerStatuses, one)
		}
	}
	s.Phase = phase(p, s.ContainerStatuses)
	s.Reason, s.Message = p.Reason, p.Message
	s.Conditions = conditions(p, s.Phase, base.Conditions, now)
	return s
}

func containerStatus(c *Container, terminating bool) corev1.ContainerStatus {
	one := *c.Status.DeepCopy()
	if terminating && c.Done && one.State.Waiting != nil {
		// A pod that goes away must not wait for ever: what ended last counts, or that it never began.
		one.State = one.LastTerminationState
		if one.State.Terminated == nil {
			one.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "ContainerStatusUnknown", Message: "The container was never started"}
		}
	}
	running := one.State.Running != nil
	started := c.Started && running
	one.Started = &started
	one.Ready = c.Ready && running
	if c.Init && !c.Sidecar {
		one.Ready = one.State.Terminated != nil && one.State.Terminated.ExitCode == 0
	}
	return one
}

func phase(p *Pod, containers []corev1.ContainerStatus) corev1.PodPhase {
	alive := false
	for i := range p.Containers {
		alive = alive || p.Containers[i].Status.State.Running != nil
	}
	if p.FinalPhase != "" && !alive {
		return p.FinalPhase
	}
	if !p.Initialized {
		return corev1.PodPending
	}
	for i := range containers {
		// A container that waits for its next start after a crash keeps the pod Running.
		if s := &containers[i]; s.State.Waiting == nil || s.LastTerminationState.Terminated != nil {
			return corev1.PodRunning
		}
	}
	return corev1.PodPending
}

func conditions(p *Pod, phase corev1.PodPhase, base []corev1.PodCondition, now metav1.Time) []corev1.PodCondition {
	var out []corev1.PodCondition
	set := func(kind corev1.PodConditionType, is bool, reason, message string) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: now, ObservedGeneration: p.Pod.Generation}
		if is {
			c.Status = corev1.ConditionTrue
		}
		for _, old := range base {
			if old.Type == kind && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		out = append(out, c)
	}
	final := phase == corev1.PodSucceeded || phase == corev1.PodFailed
	set(corev1.PodReadyToStartContainers, p.VolumesReady && !final, "", "")
	ready, not := containersReady(p)
	switch {
	case phase == corev1.PodSucceeded:
		set(corev1.PodInitialized, true, "PodCompleted", "")
		set(corev1.PodReady, false, "PodCompleted", "")
		set(corev1.ContainersReady, false, "PodCompleted", "")
	case phase == corev1.PodFailed:
		if p.Initialized {
			set(corev1.PodInitialized, true, "", "")
		} else {
			set(corev1.PodInitialized, false, "ContainersNotInitialized", "containers with incomplete status")
		}
		set(corev1.PodReady, false, "PodFailed", "")
		set(corev1.ContainersReady, false, "PodFailed", "")
	default:
		if p.Initialized {
			set(corev1.PodInitialized, true, "", "")
		} else {
			set(corev1.PodInitialized, false, "ContainersNotInitialized", "containers with incomplete status")
		}
		message := fmt.Sprintf("containers with unready status: [%s]", strings.Join(not, " "))
		switch {
		case !ready:
			set(corev1.PodReady, false, "ContainersNotReady", message)
			set(corev1.ContainersReady, false, "ContainersNotReady", message)
		case !gatesOpen(p.Pod, base):
			set(corev1.PodReady, false, "ReadinessGatesNotReady", "a readiness gate of the pod is not True")
			set(corev1.ContainersReady, true, "", "")
		default:
			set(corev1.PodReady, true, "", "")
			set(corev1.ContainersReady, true, "", "")
		}
	}
	set(corev1.PodScheduled, true, "", "")
	disrupted := p.DisruptionWhy != "" && final
	if disrupted {
		set(corev1.DisruptionTarget, true, corev1.PodReasonTerminationByKubelet, p.DisruptionWhy)
	}
	for _, c := range base {
		if !decisive[c.Type] && !(disrupted && c.Type == corev1.DisruptionTarget) {
			out = append(out, c)
		}
	}
	return out
}

// FinalPhase is how a pod ends whose containers are done: Succeeded if each that counts exited with 0.
func FinalPhase(containers []Container) corev1.PodPhase {
	for i := range containers {
		c := &containers[i]
		if c.Sidecar {
			continue
		}
		if t := c.Status.State.Terminated; t == nil || t.ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}
