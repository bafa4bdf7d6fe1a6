package volumes

import (
	"context"
	"fmt"
	"os"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The functions of this file add the files of one API object to a volume's files.

func fileMode(mode *int32, otherwise os.FileMode) os.FileMode {
	if mode == nil {
		return otherwise
	}
	return os.FileMode(*mode) & os.ModePerm
}

func addItems(data map[string][]byte, items []corev1.KeyToPath, mode os.FileMode, optional bool, object string, files map[string]content) error {
	if len(items) == 0 {
		for key, value := range data {
			files[key] = content{value, mode}
		}
		return nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("%s references non-existent key: %s", object, item.Key)
		}
		files[item.Path] = content{value, fileMode(item.Mode, mode)}
	}
	return nil
}

func (s *Set) addConfigMap(ctx context.Context, name string, items []corev1.KeyToPath, mode os.FileMode, optional *bool, files map[string]content) error {
	m, err := s.client.CoreV1().ConfigMaps(s.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && is(optional) {
		return nil
	}
	if err != nil {
		return err
	}
	data := map[string][]byte{}
	for key, value := range m.Data {
		data[key] = []byte(value)
	}
	for key, value := range m.BinaryData {
		data[key] = value
	}
	return addItems(data, items, mode, is(optional), "configmap "+name, files)
}

func (s *Set) addSecret(ctx context.Context, name string, items []corev1.KeyToPath, mode os.FileMode, optional *bool, files map[string]content) error {
	secret, err := s.client.CoreV1().Secrets(s.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && is(optional) {
		return nil
	}
	if err != nil {
		return err
	}
	return addItems(secret.Data, items, mode, is(optional), "secret "+name, files)
}

func (s *Set) addDownward(items []corev1.DownwardAPIVolumeFile, mode os.FileMode, files map[string]content) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = s.downward().Field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = s.downward().Resource(item.ResourceFieldRef, nil)
		}
		if err != nil {
			return err
		}
		files[item.Path] = content{[]byte(value), fileMode(item.Mode, mode)}
	}
	return nil
}

type token struct {
	text   string
	issued time.Time
	expiry time.Time
}

// stale follows the kubelet: a token is renewed after 80 % of its life, or after a day.
func (t *token) stale(now time.Time) bool {
	life := t.expiry.Sub(t.issued)
	return now.After(t.issued.Add(life*8/10)) || now.Sub(t.issued) > 24*time.Hour
}

func (s *Set) addToken(ctx context.Context, volume string, p *corev1.ServiceAccountTokenProjection, files map[string]content) error {
	key := volume + "/" + p.Path
	held := s.tokens[key]
	if held == nil || held.stale(time.Now()) {
		request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
			ExpirationSeconds: p.ExpirationSeconds,
			BoundObjectRef:    &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: s.pod.Name, UID: s.pod.UID},
		}}
		if p.Audience != "" {
			request.Spec.Audiences = []string{p.Audience}
		}
		now := time.Now()
		answer, err := s.client.CoreV1().ServiceAccounts(s.pod.Namespace).CreateToken(ctx, s.pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("failed to fetch token: %w", err)
		}
		held = &token{answer.Status.Token, now, answer.Status.ExpirationTimestamp.Time}
		s.tokens[key] = held
	}
	// Only the owner reads it, whatever the volume's mode says: all pods are one user here.
	files[p.Path] = content{[]byte(held.text), 0o600}
	return nil
}

func is(b *bool) bool { return b != nil && *b }
