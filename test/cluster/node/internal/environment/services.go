package environment

import (
	"fmt"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ServiceVariables are the variables a pod gets for the Services of its namespace, in Docker's form.
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
func ServiceVariables(services []*corev1.Service) map[string]string {
	out := map[string]string{}
	for _, s := range services {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		prefix := variable(s.Name)
		out[prefix+"_SERVICE_HOST"] = s.Spec.ClusterIP
		out[prefix+"_SERVICE_PORT"] = fmt.Sprint(s.Spec.Ports[0].Port)
		for i, port := range s.Spec.Ports {
			number, protocol := fmt.Sprint(port.Port), strings.ToLower(string(port.Protocol))
			if port.Name != "" {
				out[prefix+"_SERVICE_PORT_"+variable(port.Name)] = number
			}
			url := protocol + "://" + net.JoinHostPort(s.Spec.ClusterIP, number)
			if i == 0 {
				out[prefix+"_PORT"] = url
			}
			one := fmt.Sprintf("%s_PORT_%s_%s", prefix, number, strings.ToUpper(protocol))
			out[one], out[one+"_PROTO"], out[one+"_PORT"], out[one+"_ADDR"] = url, protocol, number, s.Spec.ClusterIP
		}
	}
	return out
}

func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }

// APIServerVariables point in-cluster clients straight at the API server: no Service stands before it here.
func APIServerVariables(host, port string) map[string]string {
	return map[string]string{
		"KUBERNETES_SERVICE_HOST":       host,
		"KUBERNETES_SERVICE_PORT":       port,
		"KUBERNETES_SERVICE_PORT_HTTPS": port,
		"KUBERNETES_PORT":               "tcp://" + net.JoinHostPort(host, port),
	}
}
