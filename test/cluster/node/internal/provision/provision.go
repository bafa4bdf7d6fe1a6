// Package provision makes a folder for each claim of the StorageClass with this provisioner, and removes it when the volume is
// released and its policy is Delete.
package provision

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
	"k8s.io/client-go/util/workqueue"
)

// Name is the provisioner that a StorageClass names.
const Name = "fovea.dev/local"

const (
	annotationProvisioner   = "volume.kubernetes.io/storage-provisioner" // set on a claim by the volume controller
	annotationProvisionedBy = "pv.kubernetes.io/provisioned-by"
	resync                  = 30 * time.Second
)

type provisioner struct {
	client  kubernetes.Interface
	dir     string
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	queue   workqueue.TypedRateLimitingInterface[key]
	events  record.EventRecorder
}

// key is a claim, or a volume where the namespace is empty.
type key struct{ namespace, name string }

// Run provisions folders below `dir` until `ctx` ends.
func Run(ctx context.Context, client kubernetes.Interface, dir string) {
	factory := informers.NewSharedInformerFactory(client, resync)
	claims, volumes := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: client.CoreV1().Events("")})
	defer broadcaster.Shutdown()
	p := &provisioner{
		client: client, dir: dir, claims: claims.Lister(), volumes: volumes.Lister(),
		queue:  workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[key](100*time.Millisecond, time.Minute)),
		events: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: Name}),
	}
	enqueue := func(object any) {
		if m, ok := object.(metav1.Object); ok {
			p.queue.Add(key{m.GetNamespace(), m.GetName()})
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }}
	_, _ = claims.Informer().AddEventHandler(handler)
	_, _ = volumes.Informer().AddEventHandler(handler)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go func() { <-ctx.Done(); p.queue.ShutDown() }()
	for {
		k, shutdown := p.queue.Get()
		if shutdown {
			return
		}
		if err := p.reconcile(ctx, k); err != nil && ctx.Err() == nil {
			utilruntime.HandleError(fmt.Errorf("provision %s/%s: %w", k.namespace, k.name, err))
			p.queue.AddRateLimited(k)
		} else {
			p.queue.Forget(k)
		}
		p.queue.Done(k)
	}
}

func (p *provisioner) reconcile(ctx context.Context, k key) error {
	if k.namespace == "" {
		volume, err := p.volumes.Get(k.name)
		if err != nil {
			return ignoreNotFound(err)
		}
		return p.reclaim(ctx, volume)
	}
	claim, err := p.claims.PersistentVolumeClaims(k.namespace).Get(k.name)
	if err != nil {
		return ignoreNotFound(err)
	}
	return p.provision(ctx, claim)
}

// provision makes the folder and the volume of an unbound claim. Both are named by the claim's uid, so that repeating is safe.
func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Annotations[annotationProvisioner] != Name || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return nil
	}
	if claim.Spec.Selector != nil {
		p.events.Event(claim, corev1.EventTypeWarning, "ProvisioningFailed", "spec.selector: a volume made on demand cannot be selected by labels")
		return nil
	}
	class, err := p.client.StorageV1().StorageClasses().Get(ctx, *claim.Spec.StorageClassName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	folder := filepath.Join(p.dir, fmt.Sprintf("%s-%s-%s", claim.Namespace, claim.Name, claim.UID))
	if err := os.MkdirAll(folder, 0o777); err != nil {
		p.events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed", "folder %s: %v", folder, err)
		return err
	}
	if err := os.Chmod(folder, 0o777); err != nil {
		return err
	}
	volume, err := volumeOf(claim, class, folder)
	if err != nil {
		return err
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		p.events.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "made folder %s", folder)
	}
	return err
}

func volumeOf(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, folder string) (*corev1.PersistentVolume, error) {
	ref, err := reference.GetReference(scheme.Scheme, claim)
	if err != nil {
		return nil, err
	}
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	filesystem := corev1.PersistentVolumeFilesystem
	directory := corev1.HostPathDirectoryOrCreate
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + string(claim.UID), Annotations: map[string]string{annotationProvisionedBy: Name}},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: policy,
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    &filesystem,
			// A folder has no size of its own: what is asked for is what it is called.
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			ClaimRef:               ref,
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: folder, Type: &directory}},
		},
	}, nil
}

// reclaim removes the folder and then the volume, once its claim is gone.
func (p *provisioner) reclaim(ctx context.Context, volume *corev1.PersistentVolume) error {
	if volume.Annotations[annotationProvisionedBy] != Name || volume.Status.Phase != corev1.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || volume.Spec.HostPath == nil {
		return nil
	}
	// The path was written by this provisioner, but anybody who may edit volumes can have changed it since.
	path := filepath.Clean(volume.Spec.HostPath.Path)
	if filepath.Dir(path) != filepath.Clean(p.dir) || !strings.HasSuffix(path, strings.TrimPrefix(volume.Name, "pvc-")) {
		p.events.Eventf(volume, corev1.EventTypeWarning, "VolumeFailedDelete", "%s is not this volume's folder in %s; delete it by hand", path, p.dir)
		return nil
	}
	if err := os.RemoveAll(path); err != nil {
		p.events.Eventf(volume, corev1.EventTypeWarning, "VolumeFailedDelete", "%v", err)
		return err
	}
	return ignoreNotFound(p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{}))
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
