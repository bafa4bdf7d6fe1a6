package network

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Endpoint is a pod as Services see it.
type Endpoint struct {
	Pod   *corev1.Pod
	IP    string
	Ready bool
}

// Names maps an address to the names it has.
type Names map[string][]string

// Plan is what should be listened on and what names mean.
type Plan struct {
	// Forwards maps a Service's address and port to the pods' behind it, sorted; none where no pod is ready.
	Forwards map[string][]string
	// Hosts has the names in the namespace of each pod.
	Hosts map[string]Names
}

// MakePlan works out the forwards and names of Services over pods. apiServer (host:port) stands behind default/kubernetes.
func MakePlan(services []*corev1.Service, endpoints []Endpoint, apiServer string) Plan {
	plan := Plan{Forwards: map[string][]string{}, Hosts: map[string]Names{}}
	for _, e := range endpoints {
		if plan.Hosts[e.Pod.Namespace] == nil {
			plan.Hosts[e.Pod.Namespace] = Names{}
		}
	}
	for _, s := range services {
		selected := selectEndpoints(s, endpoints)
		if s.Spec.ClusterIP == corev1.ClusterIPNone {
			for _, e := range selected {
				plan.name(s.Namespace, e.IP, s.Name)
				if e.Pod.Spec.Subdomain == s.Name && e.Pod.Spec.Hostname != "" {
					plan.name(s.Namespace, e.IP, e.Pod.Spec.Hostname+"."+s.Name)
				}
			}
			continue
		}
		if s.Spec.ClusterIP == "" {
			continue
		}
		plan.name(s.Namespace, s.Spec.ClusterIP, s.Name)
		for _, port := range s.Spec.Ports {
			if port.Protocol != corev1.ProtocolTCP {
				continue
			}
			backends := []string{}
			if s.Namespace == defaultNamespace && s.Name == "kubernetes" {
				backends = append(backends, apiServer)
			}
			for _, e := range selected {
				if number := targetPort(port, e.Pod); number != 0 {
					backends = append(backends, net.JoinHostPort(e.IP, fmt.Sprint(number)))
				}
			}
			slices.Sort(backends)
			plan.Forwards[net.JoinHostPort(s.Spec.ClusterIP, fmt.Sprint(port.Port))] = backends
		}
	}
	return plan
}

const defaultNamespace = "default"

func selectEndpoints(s *corev1.Service, endpoints []Endpoint) []Endpoint {
	if len(s.Spec.Selector) == 0 {
		return nil
	}
	selector := labels.SelectorFromSet(s.Spec.Selector)
	var out []Endpoint
	for _, e := range endpoints {
		if e.Pod.Namespace == s.Namespace && (e.Ready || s.Spec.PublishNotReadyAddresses) && selector.Matches(labels.Set(e.Pod.Labels)) {
			out = append(out, e)
		}
	}
	return out
}

// targetPort is 0 where the pod has no port of the name that the Service targets.
func targetPort(port corev1.ServicePort, pod *corev1.Pod) int {
	if name := port.TargetPort.StrVal; name != "" {
		for _, c := range pod.Spec.Containers {
			for _, p := range c.Ports {
				if p.Name == name {
					return int(p.ContainerPort)
				}
			}
		}
		return 0
	}
	if number := port.TargetPort.IntValue(); number != 0 {
		return number
	}
	return int(port.Port)
}

// name gives `ip` the names of a Service's `name` in every namespace that has a pod; the short one only in its own.
func (p Plan) name(namespace, ip, name string) {
	for viewer, names := range p.Hosts {
		if viewer == namespace {
			names[ip] = append(names[ip], name)
		}
		qualified := name + "." + namespace
		names[ip] = append(names[ip], qualified, qualified+".svc", qualified+".svc.cluster.local")
	}
}

// HostsFile is a pod's /etc/hosts.
func HostsFile(pod *corev1.Pod, ip, hostname string, names Names) string {
	var b strings.Builder
	b.WriteString("# Written by the node.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if pod.Spec.Subdomain != "" {
		fmt.Fprintf(&b, "%s\t%s.%s.%s.svc.cluster.local %s\n", ip, hostname, pod.Spec.Subdomain, pod.Namespace, hostname)
	} else {
		fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
	}
	for _, address := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(&b, "%s\t%s\n", address, strings.Join(names[address], " "))
	}
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, " "))
	}
	return b.String()
}

// Hostname is what a pod's containers call their machine.
func Hostname(pod *corev1.Pod) string {
	if pod.Spec.Hostname != "" {
		return pod.Spec.Hostname
	}
	return strings.TrimRight(pod.Name[:min(len(pod.Name), 63)], "-.")
}
