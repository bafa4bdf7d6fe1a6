// Package node joins the parts: it follows the pods that are bound to this node, writes their statuses, keeps the network as
// they need it, and registers the node.
package node

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"fovea.dev/node/internal/launch"
	"fovea.dev/node/internal/network"
	"fovea.dev/node/internal/pod"
	"fovea.dev/node/internal/shimapi"
)

const (
	// goneGrace is what a pod gets whose object has vanished: it was deleted by force.
	goneGrace = time.Second
	// writeTimeout bounds one write to the API; retryPause is the time to the next after one that failed.
	writeTimeout = 15 * time.Second
	retryPause   = time.Second
)

// Pods are the workers of the node's pods.
type Pods struct {
	host      *pod.Host
	client    kubernetes.Interface
	lister    corelisters.PodLister
	addresses *network.Addresses

	mu      sync.Mutex
	workers map[types.UID]*pod.Worker
}

func newPods(host *pod.Host, client kubernetes.Interface, lister corelisters.PodLister) *Pods {
	return &Pods{host: host, client: client, lister: lister, addresses: network.NewAddresses(host.Config.PodNetwork), workers: map[types.UID]*pod.Worker{}}
}

// handler follows the informer.
func (p *Pods) handler(ctx context.Context) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { p.sync(ctx, o.(*corev1.Pod)) },
		UpdateFunc: func(before, after any) {
			// A list after a broken watch may show another pod of the same name as an update.
			if old := before.(*corev1.Pod); old.UID != after.(*corev1.Pod).UID {
				p.gone(old)
			}
			p.sync(ctx, after.(*corev1.Pod))
		},
		DeleteFunc: func(o any) {
			if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = tombstone.Obj
			}
			if old, ok := o.(*corev1.Pod); ok {
				p.gone(old)
			}
		},
	}
}

// sync brings a pod's worker to what the API says. It does not wait.
func (p *Pods) sync(ctx context.Context, object *corev1.Pod) {
	p.mu.Lock()
	w := p.workers[object.UID]
	if w != nil {
		p.mu.Unlock()
		w.Update(object)
		return
	}
	defer p.mu.Unlock()
	if object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed {
		if object.DeletionTimestamp != nil {
			go p.delete(ctx, object)
		}
		return
	}
	ip, err := p.address(object)
	if err != nil {
		p.host.Events.Event(object, corev1.EventTypeWarning, "FailedCreatePodSandBox", err.Error())
		return
	}
	w = pod.New(p.host, object, ip)
	p.workers[object.UID] = w
	if object.DeletionTimestamp != nil {
		w.Terminate(pod.Grace(object))
	}
	go w.Run(ctx)
	go p.writeStatus(ctx, w)
}

func (p *Pods) address(object *corev1.Pod) (string, error) {
	if object.Spec.HostNetwork {
		return p.host.IP, nil
	}
	if ip := pod.RecordedIP(p.folder(object.UID)); ip != "" {
		p.addresses.Keep(ip)
		return ip, nil
	}
	return p.addresses.Take()
}

func (p *Pods) folder(uid types.UID) string {
	return filepath.Join(p.host.Config.PodsDir(), string(uid))
}

// gone ends what is left of a pod whose object is gone.
func (p *Pods) gone(object *corev1.Pod) {
	p.mu.Lock()
	w := p.workers[object.UID]
	p.mu.Unlock()
	if w == nil {
		_ = os.RemoveAll(p.folder(object.UID))
		return
	}
	w.Terminate(goneGrace)
	go func() {
		<-w.Done
		p.forget(w)
	}()
}

func (p *Pods) forget(w *pod.Worker) {
	p.mu.Lock()
	delete(p.workers, w.Pod().UID)
	p.mu.Unlock()
	if !w.Pod().Spec.HostNetwork {
		p.addresses.Give(w.IP)
	}
	if err := w.RemoveFolder(); err != nil {
		fmt.Fprintln(os.Stderr, "pod folder:", err)
	}
	p.host.Changed()
}

// delete removes the object of a pod none of whose processes lives.
func (p *Pods) delete(ctx context.Context, object *corev1.Pod) {
	options := metav1.NewDeleteOptions(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(object.UID))
	for {
		try, cancel := context.WithTimeout(ctx, writeTimeout)
		err := p.client.CoreV1().Pods(object.Namespace).Delete(try, object.Name, *options)
		cancel()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryPause):
		}
	}
}

// writeStatus writes a pod's status whenever it changes, many changes at once, until the pod is gone.
func (p *Pods) writeStatus(ctx context.Context, w *pod.Worker) {
	done := w.Done
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.Dirty:
		case <-done:
			done = nil
		}
		object := w.Pod()
		if !p.flush(ctx, w, object) {
			return
		}
		if done == nil || isClosed(w.Done) {
			if object = w.Pod(); object.DeletionTimestamp != nil {
				p.delete(ctx, object)
				return
			}
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// flush writes until the API has the status; false if the object is gone.
func (p *Pods) flush(ctx context.Context, w *pod.Worker, object *corev1.Pod) bool {
	current, err := p.lister.Pods(object.Namespace).Get(object.Name)
	for {
		if err == nil && current.UID == object.UID {
			updated := current.DeepCopy()
			updated.Status = w.Status(&current.Status)
			if sameJSON(current.Status, updated.Status) {
				return true
			}
			try, cancel := context.WithTimeout(ctx, writeTimeout)
			_, err = p.client.CoreV1().Pods(object.Namespace).UpdateStatus(try, updated, metav1.UpdateOptions{})
			cancel()
			if err == nil {
				return true
			}
			if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				fmt.Fprintf(os.Stderr, "status of pod %s/%s: %v\n", object.Namespace, object.Name, err)
				select {
				case <-ctx.Done():
					return false
				case <-time.After(retryPause):
				}
			}
		}
		try, cancel := context.WithTimeout(ctx, writeTimeout)
		current, err = p.client.CoreV1().Pods(object.Namespace).Get(try, object.Name, metav1.GetOptions{})
		cancel()
		if apierrors.IsNotFound(err) || (err == nil && current.UID != object.UID) || ctx.Err() != nil {
			return false
		}
		if err != nil {
			select {
			case <-ctx.Done():
				return false
			case <-time.After(retryPause):
			}
		}
	}
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// Worker of a pod by name: the youngest, as one that goes away and its successor may share it.
func (p *Pods) Worker(namespace, name string) *pod.Worker {
	var found *pod.Worker
	for _, w := range p.list() {
		if o := w.Pod(); o.Namespace == namespace && o.Name == name && (found == nil || w.Created.After(found.Created)) {
			found = w
		}
	}
	return found
}

func (p *Pods) list() []*pod.Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*pod.Worker, 0, len(p.workers))
	for _, w := range p.workers {
		out = append(out, w)
	}
	return out
}

// All are the pods that have a worker.
func (p *Pods) All() []*corev1.Pod {
	var out []*corev1.Pod
	for _, w := range p.list() {
		out = append(out, w.Pod())
	}
	return out
}

// FinishedLog is the log of a container of a pod that had ended before this process began.
func (p *Pods) FinishedLog(namespace, name, container string) (string, bool) {
	object, err := p.lister.Pods(namespace).Get(name)
	if err != nil {
		return "", false
	}
	return pod.FinishedLog(p.folder(object.UID), container)
}

// Sweep ends the containers of pods that are not in `keep`, and removes their folders: they are what an earlier node left.
func Sweep(podsDir string, keep map[types.UID]bool) error {
	entries, err := os.ReadDir(podsDir)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for _, e := range entries {
		if keep[types.UID(e.Name())] {
			continue
		}
		dir := filepath.Join(podsDir, e.Name())
		all.Go(func() {
			files, _ := filepath.Glob(filepath.Join(dir, "containers", "*", "*", shimapi.ContainerFile))
			for _, file := range files {
				if run := launch.Adopt(filepath.Dir(file)); run != nil {
					run.Kill()
				}
			}
			if err := os.RemoveAll(dir); err != nil {
				fmt.Fprintln(os.Stderr, "pod folder:", err)
			}
		})
	}
	all.Wait()
	return nil
}
