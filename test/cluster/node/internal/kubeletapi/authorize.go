package kubeletapi

import (
	"net/http"
	"sync"
	"time"

	authv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const authorizationCached = time.Minute

// authorize lets through whose certificate names a user that may proxy to this node, as the API server says: the CA signs other
// users' certificates too.
func authorize(client kubernetes.Interface, node string, next http.Handler) http.Handler {
	var mu sync.Mutex
	allowed := map[string]time.Time{} // until when, by user and verb
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject := r.TLS.PeerCertificates[0].Subject
		verb := "get"
		if r.Method == http.MethodPost {
			verb = "create"
		}
		key := subject.String() + " " + verb
		mu.Lock()
		known := time.Now().Before(allowed[key])
		mu.Unlock()
		if !known {
			review, err := client.AuthorizationV1().SubjectAccessReviews().Create(r.Context(), &authv1.SubjectAccessReview{Spec: authv1.SubjectAccessReviewSpec{
				User: subject.CommonName, Groups: append(subject.Organization, "system:authenticated"),
				ResourceAttributes: &authv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: "proxy", Name: node},
			}}, metav1.CreateOptions{})
			if err != nil {
				http.Error(w, "authorization: "+err.Error(), http.StatusInternalServerError)
				return
			}
			if !review.Status.Allowed {
				http.Error(w, "user "+subject.CommonName+" may not "+verb+" nodes/proxy of "+node, http.StatusForbidden)
				return
			}
			mu.Lock()
			allowed[key] = time.Now().Add(authorizationCached)
			mu.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}
