// Package probe checks containers over HTTP, TCP and exec, and counts the answers against thresholds.
package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Target is the container that is checked.
type Target struct {
	IP    string
	Ports []corev1.ContainerPort
	// Exec runs a command in the container and returns its exit code and the beginning of what it wrote.
	Exec func(ctx context.Context, command []string) (code int, output string, err error)
}

// Check does what a probe (or a lifecycle hook) says, once; nil is success.
func Check(ctx context.Context, h corev1.ProbeHandler, t Target) error {
	switch {
	case h.HTTPGet != nil:
		return checkHTTP(ctx, h.HTTPGet, t)
	case h.TCPSocket != nil:
		port, err := t.port(h.TCPSocket.Port)
		if err != nil {
			return err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(t.host(h.TCPSocket.Host), port))
		if err != nil {
			return err
		}
		return conn.Close()
	case h.Exec != nil:
		code, output, err := t.Exec(ctx, h.Exec.Command)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("command exited with %d: %s", code, strings.TrimSpace(output))
		}
		return nil
	}
	return fmt.Errorf("this kind of probe is not supported; httpGet, tcpSocket and exec are")
}

// A probe may be answered with any certificate, and a redirect counts as success, as in the kubelet.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func checkHTTP(ctx context.Context, a *corev1.HTTPGetAction, t Target) error {
	port, err := t.port(a.Port)
	if err != nil {
		return err
	}
	scheme := strings.ToLower(string(a.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	url := fmt.Sprintf("%s://%s/%s", scheme, net.JoinHostPort(t.host(a.Host), port), strings.TrimPrefix(a.Path, "/"))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/1.34")
	for _, header := range a.HTTPHeaders {
		request.Header.Add(header.Name, header.Value)
		if strings.EqualFold(header.Name, "Host") {
			request.Host = header.Value
		}
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, response.Body, 10<<10)
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", response.StatusCode)
	}
	return nil
}

func (t Target) host(host string) string {
	if host == "" {
		return t.IP
	}
	return host
}

func (t Target) port(p intstr.IntOrString) (string, error) {
	if p.Type == intstr.Int {
		return strconv.Itoa(p.IntValue()), nil
	}
	for _, port := range t.Ports {
		if port.Name == p.StrVal {
			return strconv.Itoa(int(port.ContainerPort)), nil
		}
	}
	return "", fmt.Errorf("the container has no port called %q", p.StrVal)
}

// Kind is which of the three probes of a container.
type Kind string

// The probes of a container.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// eagerChecks is how often a container that has not yet answered is asked again after eagerPeriod and not after its whole period:
// a test cluster is waited for by somebody.
const (
	eagerChecks = 10
	eagerPeriod = 200 * time.Millisecond
)

// Counter turns the answers of one probe into changes of state.
type Counter struct {
	kind               Kind
	period             time.Duration
	successes, allowed int // thresholds
	good, bad          int // in a row
	eager              int
	decided, healthy   bool
}

// NewCounter counts for a probe, with the defaults of the API where it leaves them open.
func NewCounter(kind Kind, p *corev1.Probe) *Counter {
	return &Counter{kind: kind, period: Period(p), successes: int(max(p.SuccessThreshold, 1)), allowed: int(orDefault(p.FailureThreshold, 3))}
}

// Count takes one answer. changed says that a threshold was crossed, to healthy or not; next is the time to the next check.
func (c *Counter) Count(ok bool) (changed, healthy bool, next time.Duration) {
	if ok {
		c.good, c.bad = c.good+1, 0
		if c.good >= c.successes && !(c.decided && c.healthy) {
			c.decided, c.healthy = true, true
			return true, true, c.period
		}
		return false, c.healthy, c.period
	}
	c.good = 0
	if !c.decided && c.kind != Liveness && c.eager < eagerChecks {
		c.eager++
		return false, false, min(c.period, eagerPeriod)
	}
	c.bad++
	if c.bad >= c.allowed && !(c.decided && !c.healthy) {
		c.decided, c.healthy = true, false
		return true, false, c.period
	}
	return false, c.healthy, c.period
}

// Period is the time between two checks.
func Period(p *corev1.Probe) time.Duration {
	return time.Duration(orDefault(p.PeriodSeconds, 10)) * time.Second
}

// Timeout is the time one check may take.
func Timeout(p *corev1.Probe) time.Duration {
	return time.Duration(orDefault(p.TimeoutSeconds, 1)) * time.Second
}

func orDefault(v, otherwise int32) int32 {
	if v == 0 {
		return otherwise
	}
	return v
}
