package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"fovea.dev/node/internal/network"
)

const (
	// Changes that come together are planned together.
	networkSettle = 20 * time.Millisecond
	// An address that could not be listened on is tried again this often.
	networkRetry = 5 * time.Second
)

// keepNetwork plans Services and names again whenever pods or Services have changed.
func (p *Pods) keepNetwork(ctx context.Context, services corelisters.ServiceLister, changed <-chan struct{}) {
	proxy := network.NewProxy()
	retry := time.NewTicker(networkRetry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		case <-changed:
			time.Sleep(networkSettle)
		}
		p.applyNetwork(proxy, services)
	}
}

func (p *Pods) applyNetwork(proxy *network.Proxy, lister corelisters.ServiceLister) {
	workers := p.list()
	var endpoints []network.Endpoint
	for _, w := range workers {
		if e, live := w.Endpoint(); live {
			endpoints = append(endpoints, e)
		}
	}
	services, err := lister.List(labels.Everything())
	if err != nil {
		return
	}
	plan := network.MakePlan(services, endpoints, net.JoinHostPort(p.host.APIHost, p.host.APIPort))
	for address, err := range proxy.Apply(plan.Forwards) {
		for _, s := range services {
			if host, _, _ := net.SplitHostPort(address); host == s.Spec.ClusterIP {
				p.host.Events.Eventf(s, corev1.EventTypeWarning, "ListenFailed",
					"cannot listen on %s: %v (a port below 1024 needs root, or a lower net.ipv4.ip_unprivileged_port_start)", address, err)
			}
		}
	}
	for _, w := range workers {
		if err := w.WriteHosts(plan.Hosts[w.Pod().Namespace]); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}
