package node

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/node"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"fovea.dev/node/internal/config"
)

const (
	kubeletVersion = "v1.34.4-process"
	leaseSeconds   = 40
	maxPods        = "250"
	// What fits on the disk is not looked at; the API wants a number.
	ephemeralStorage = "100Gi"
)

// resources are what the machine has, with what the configuration says instead or besides.
func resources(c *config.Config, cpus int) corev1.ResourceList {
	var machine syscall.Sysinfo_t
	_ = syscall.Sysinfo(&machine)
	list := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(cpus), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(int64(machine.Totalram)*int64(machine.Unit), resource.BinarySI),
		corev1.ResourcePods:             resource.MustParse(maxPods),
		corev1.ResourceEphemeralStorage: resource.MustParse(ephemeralStorage),
	}
	maps.Copy(list, c.Capacity)
	return list
}

func nodeObject(c *config.Config, ip string, port int32, list corev1.ResourceList, mode config.MountMode) *corev1.Node {
	labels := map[string]string{
		corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH, corev1.LabelHostname: c.Name,
		corev1.LabelInstanceTypeStable: "process", "fovea.dev/mount-mode": string(mode),
	}
	maps.Copy(labels, c.Labels)
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: reason, LastTransitionTime: metav1.Now()}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: c.Name, Labels: labels},
		Status: corev1.NodeStatus{
			Capacity: list, Allocatable: list,
			Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}, {Type: corev1.NodeHostName, Address: c.Name}},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: port}},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion: kubeletVersion, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH, ContainerRuntimeVersion: "process://" + string(mode),
				KernelVersion: strings.TrimSpace(string(kernel)), OSImage: "processes of this machine",
			},
			Conditions: []corev1.NodeCondition{
				condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
				condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
				condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
				condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"),
			},
		},
	}
}

// register keeps the Node object and its lease until `ctx` ends, and makes the object again if somebody deletes it.
func register(ctx context.Context, client kubernetes.Interface, object *corev1.Node) {
	again := func(ctx context.Context, err error) error {
		if !apierrors.IsNotFound(err) {
			return err
		}
		fresh := object.DeepCopy()
		fresh.ResourceVersion, fresh.UID = "", ""
		_, err = client.CoreV1().Nodes().Create(ctx, fresh, metav1.CreateOptions{})
		return err
	}
	for ctx.Err() == nil {
		controller, err := node.NewNodeController(node.NaiveNodeProvider{}, object.DeepCopy(), client.CoreV1().Nodes(),
			node.WithNodeEnableLeaseV1(client.CoordinationV1().Leases(corev1.NamespaceNodeLease), leaseSeconds),
			node.WithNodeStatusUpdateInterval(10*time.Second),
			node.WithNodeStatusUpdateErrorHandler(again))
		if err == nil {
			err = controller.Run(ctx)
		}
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "node registration, tried again in a second:", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}
