// Package kubeletapi is the part of the kubelet's HTTPS API that stands behind kubectl logs, exec and port-forward.
package kubeletapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/errdefs"
	"github.com/virtual-kubelet/virtual-kubelet/node/api"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	utilexec "k8s.io/utils/exec"

	"fovea.dev/node/internal/config"
	"fovea.dev/node/internal/pod"
)

// streamIdle ends an exec or port-forward on which nothing has moved, as in the kubelet.
const streamIdle = 4 * time.Hour

// Pods are those of the node.
type Pods interface {
	// Worker of a pod; nil if there is none.
	Worker(namespace, name string) *pod.Worker
	// FinishedLog is the log of a container of a pod that had ended before this process began.
	FinishedLog(namespace, pod, container string) (path string, ok bool)
	All() []*corev1.Pod
}

type server struct{ pods Pods }

// Serve answers on the configured address until the process ends.
func Serve(c *config.Config, client kubernetes.Interface, pods Pods) error {
	certificate, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
	if err != nil {
		return fmt.Errorf("tls.certFile, tls.keyFile: %w", err)
	}
	pem, err := os.ReadFile(c.TLS.ClientCAFile)
	if err != nil {
		return fmt.Errorf("tls.clientCAFile: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(pem) {
		return fmt.Errorf("tls.clientCAFile: %s has no certificate", c.TLS.ClientCAFile)
	}
	listener, err := tls.Listen("tcp", c.Listen, &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12,
		// Streams are upgraded HTTP/1.1 connections.
		NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &server{pods}
	handler := api.PodHandler(api.PodHandlerConfig{
		RunInContainer: s.exec, PortForward: s.portForward, GetContainerLogs: s.logs,
		AttachToContainer:     s.attach,
		GetPods:               func(context.Context) ([]*corev1.Pod, error) { return pods.All(), nil },
		GetPodsFromKubernetes: func(context.Context) ([]*corev1.Pod, error) { return pods.All(), nil },
		StreamIdleTimeout:     streamIdle, StreamCreationTimeout: 30 * time.Second,
	}, true)
	go func() {
		err := (&http.Server{Handler: authorize(client, c.Name, handler), ReadHeaderTimeout: 30 * time.Second}).Serve(listener)
		fmt.Fprintln(os.Stderr, "kubelet API:", err)
		os.Exit(1)
	}()
	return nil
}

func (s *server) worker(namespace, name string) (*pod.Worker, error) {
	if w := s.pods.Worker(namespace, name); w != nil {
		return w, nil
	}
	return nil, errdefs.NotFoundf("pod %s/%s is not running on this node", namespace, name)
}

func (s *server) exec(ctx context.Context, namespace, name, container string, command []string, a api.AttachIO) error {
	w, err := s.worker(namespace, name)
	if err != nil {
		return err
	}
	streams := pod.Streams{Stdin: a.Stdin(), TTY: a.TTY()}
	if out := a.Stdout(); out != nil {
		streams.Stdout = out
	}
	if out := a.Stderr(); out != nil {
		streams.Stderr = out
	}
	if a.TTY() {
		streams.Resize = func(set func(rows, columns uint16)) {
			for {
				select {
				case <-ctx.Done():
					return
				case size, ok := <-a.Resize():
					if !ok {
						return
					}
					set(size.Height, size.Width)
				}
			}
		}
	}
	code, err := w.Exec(ctx, container, command, streams)
	if errors.Is(err, pod.ErrNoContainer) {
		return errdefs.AsNotFound(err)
	}
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

// attach shows what the container writes from now on; it has no stdin to give.
func (s *server) attach(ctx context.Context, namespace, name, container string, a api.AttachIO) error {
	logs, err := s.logs(ctx, namespace, name, container, api.ContainerLogOpts{Follow: true, SinceTime: time.Now()})
	if err != nil {
		return err
	}
	defer logs.Close()
	_, err = io.Copy(a.Stdout(), logs)
	return err
}

func (s *server) portForward(ctx context.Context, namespace, name string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	w, err := s.worker(namespace, name)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(w.IP, fmt.Sprint(port)))
	if err != nil { // a program may listen on localhost only, which in a pod of its own would be the pod's
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
	}
	if err != nil {
		return err
	}
	// The stream cannot be closed in one direction: when the program has closed its side, all of it ends.
	go func() {
		_, _ = io.Copy(conn, stream)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	defer conn.Close()
	_, err = io.Copy(stream, conn)
	return err
}
