package environment

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Downward is what the downward API can tell a pod about itself.
type Downward struct {
	Pod    *corev1.Pod
	PodIP  string
	HostIP string
	// Node's allocatable resources stand for limits that a container does not have.
	Node corev1.ResourceList
}

// Field is the value of a fieldRef.
func (d *Downward) Field(path string) (string, error) {
	pod := d.Pod
	for prefix, values := range map[string]map[string]string{"metadata.labels": pod.Labels, "metadata.annotations": pod.Annotations} {
		if path == prefix {
			return formatMap(values), nil
		}
		if key, ok := strings.CutPrefix(path, prefix+"['"); ok {
			return values[strings.TrimSuffix(key, "']")], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return d.HostIP, nil
	case "status.podIP", "status.podIPs":
		return d.PodIP, nil
	}
	return "", fmt.Errorf("fieldPath %q is not supported", path)
}

func formatMap(values map[string]string) string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		lines = append(lines, fmt.Sprintf("%s=%q", key, values[key]))
	}
	return strings.Join(lines, "\n")
}

// Resource is the value of a resourceFieldRef, rounded up to whole units of its divisor. `of` is the container that asks, and
// may be nil where the reference names one (in a volume).
func (d *Downward) Resource(ref *corev1.ResourceFieldSelector, of *corev1.Container) (string, error) {
	if ref.ContainerName != "" {
		of = nil
		for _, list := range [][]corev1.Container{d.Pod.Spec.Containers, d.Pod.Spec.InitContainers} {
			for i := range list {
				if list[i].Name == ref.ContainerName {
					of = &list[i]
				}
			}
		}
	}
	if of == nil {
		return "", fmt.Errorf("resourceFieldRef %s names no container of the pod (%q)", ref.Resource, ref.ContainerName)
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	var list corev1.ResourceList
	switch kind {
	case "requests":
		list = of.Resources.Requests
	case "limits":
		list = of.Resources.Limits
	default:
		return "", fmt.Errorf("resourceFieldRef %q is neither requests.… nor limits.…", ref.Resource)
	}
	quantity, ok := list[corev1.ResourceName(name)]
	if !ok && kind == "limits" {
		quantity = d.Node[corev1.ResourceName(name)]
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(corev1.ResourceCPU) {
		return strconv.FormatInt(int64(math.Ceil(float64(quantity.MilliValue())/float64(divisor.MilliValue()))), 10), nil
	}
	return strconv.FormatInt(int64(math.Ceil(float64(quantity.Value())/float64(divisor.Value()))), 10), nil
}
