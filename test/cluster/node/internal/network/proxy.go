package network

import (
	"io"
	"net"
	"sync"
	"time"
)

const dialTimeout = 2 * time.Second

// Proxy listens on the addresses of Services and forwards to the pods behind them, in turn.
type Proxy struct {
	mu        sync.Mutex
	listeners map[string]*forwarder
	failed    map[string]bool
}

type forwarder struct {
	listener net.Listener
	mu       sync.Mutex
	backends []string
	turn     int
}

// NewProxy forwards nothing yet.
func NewProxy() *Proxy {
	return &Proxy{listeners: map[string]*forwarder{}, failed: map[string]bool{}}
}

// Apply makes the proxy forward exactly as planned. What cannot be listened on is returned once, and tried again each time.
func (p *Proxy) Apply(forwards map[string][]string) map[string]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for address, f := range p.listeners {
		if _, ok := forwards[address]; !ok {
			f.listener.Close()
			delete(p.listeners, address)
		}
	}
	errs := map[string]error{}
	for address, backends := range forwards {
		f := p.listeners[address]
		if f == nil {
			listener, err := net.Listen("tcp", address)
			if err != nil {
				if !p.failed[address] {
					errs[address] = err
				}
				p.failed[address] = true
				continue
			}
			delete(p.failed, address)
			f = &forwarder{listener: listener}
			p.listeners[address] = f
			go f.serve()
		}
		f.mu.Lock()
		f.backends = backends
		f.mu.Unlock()
	}
	return errs
}

func (f *forwarder) serve() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return
		}
		go f.forward(client.(*net.TCPConn))
	}
}

func (f *forwarder) forward(client *net.TCPConn) {
	defer client.Close()
	f.mu.Lock()
	backends, turn := f.backends, f.turn
	f.turn++
	f.mu.Unlock()
	for i := range backends {
		conn, err := net.DialTimeout("tcp", backends[(turn+i)%len(backends)], dialTimeout)
		if err != nil {
			continue
		}
		join(client, conn)
		return
	}
	_ = client.SetLinger(0) // nobody there: a reset, as kube-proxy's REJECT
}

// join copies both ways until both have ended.
func join(a, b net.Conn) {
	defer b.Close()
	half := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_ = to.(*net.TCPConn).CloseWrite()
	}
	var both sync.WaitGroup
	both.Go(func() { half(b, a) })
	both.Go(func() { half(a, b) })
	both.Wait()
}
