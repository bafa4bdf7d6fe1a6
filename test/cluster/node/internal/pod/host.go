// Package pod runs pods: a worker each, which makes the volumes, starts the containers in their order, restarts them by policy,
// checks them, and ends them gracefully. What it finds left by an earlier node it takes over.
package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"fovea.dev/node/internal/config"
	"fovea.dev/node/internal/cpus"
)

// Host is what all workers share.
type Host struct {
	Config      *config.Config
	Namespaces  bool // containers have namespaces of their own; else paths are rewritten
	ShimPath    string
	Home        string // of the user, for programs that look for it
	Images      *config.Images
	Client      kubernetes.Interface
	Services    func(namespace string) []*corev1.Service
	Events      record.EventRecorder
	IP          string
	APIHost     string
	APIPort     string
	Allocatable corev1.ResourceList
	CPUs        *cpus.Allocator
	// Changed is called when a pod became ready, or ceased to be, or went away.
	Changed func()
}
