package environment

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Build resolves a container's envFrom and env over the variables of Services. An error is what Kubernetes calls
// CreateContainerConfigError: something the container names is not there.
func Build(ctx context.Context, client kubernetes.Interface, d *Downward, c *corev1.Container, services map[string]string) (map[string]string, error) {
	r := references{client: client, namespace: d.Pod.Namespace}
	out := maps.Clone(services)
	for _, from := range c.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			data, err := r.configMap(ctx, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
			if err != nil {
				return nil, err
			}
			for key, value := range data {
				out[from.Prefix+key] = value
			}
		case from.SecretRef != nil:
			data, err := r.secret(ctx, from.SecretRef.Name, from.SecretRef.Optional)
			if err != nil {
				return nil, err
			}
			for key, value := range data {
				out[from.Prefix+key] = string(value)
			}
		}
	}
	for _, e := range c.Env {
		value, set, err := r.value(ctx, d, c, &e, out)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", e.Name, err)
		}
		if set {
			out[e.Name] = value
		}
	}
	return out, nil
}

type references struct {
	client    kubernetes.Interface
	namespace string
}

func (r *references) configMap(ctx context.Context, name string, optional *bool) (map[string]string, error) {
	m, err := r.client.CoreV1().ConfigMaps(r.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && is(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

func (r *references) secret(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	s, err := r.client.CoreV1().Secrets(r.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && is(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.Data, nil
}

// value is that of one variable; set is false for an optional reference to something absent.
func (r *references) value(ctx context.Context, d *Downward, c *corev1.Container, e *corev1.EnvVar, before map[string]string) (value string, set bool, err error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return Expand(e.Value, before), true, nil
	case from.FieldRef != nil:
		value, err = d.Field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = d.Resource(from.ResourceFieldRef, c)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := r.configMap(ctx, ref.Name, ref.Optional)
		if err != nil {
			return "", false, err
		}
		value, set = data[ref.Key]
		if !set && !is(ref.Optional) {
			return "", false, fmt.Errorf("couldn't find key %s in ConfigMap %s/%s", ref.Key, r.namespace, ref.Name)
		}
		return value, set, nil
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		data, err := r.secret(ctx, ref.Name, ref.Optional)
		if err != nil {
			return "", false, err
		}
		bytes, set := data[ref.Key]
		if !set && !is(ref.Optional) {
			return "", false, fmt.Errorf("couldn't find key %s in Secret %s/%s", ref.Key, r.namespace, ref.Name)
		}
		return string(bytes), set, nil
	}
	return "", false, fmt.Errorf("this kind of valueFrom is not supported")
}

func is(b *bool) bool { return b != nil && *b }
