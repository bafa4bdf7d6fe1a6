// Package rewrite replaces mount paths by the machine's paths inside strings, for machines that forbid user namespaces.
package rewrite

import (
	"path/filepath"
	"slices"
	"strings"
)

// Rewriter knows the mounts of one container. The zero Rewriter changes nothing.
type Rewriter struct {
	targets []string // longest first, so that a mount inside a mount wins
	sources map[string]string
}

// New makes a rewriter of a map from path in the container to path of the machine.
func New(mounts map[string]string) Rewriter {
	r := Rewriter{sources: map[string]string{}}
	for target, source := range mounts {
		target = filepath.Clean(target)
		r.targets = append(r.targets, target)
		r.sources[target] = source
	}
	slices.SortFunc(r.targets, func(a, b string) int { return len(b) - len(a) })
	return r
}

// Path rewrites every mount path in `s`. A path counts where it is a whole path or the beginning of one: at the start or after
// a character that separates words, or after "://" (file:///data), and ended by another such character, a slash, or the end.
func (r Rewriter) Path(s string) string {
	var out strings.Builder
next:
	for i := 0; i < len(s); {
		if s[i] == '/' && (i == 0 || separates(s[i-1]) || strings.HasSuffix(s[:i], "://")) {
			for _, target := range r.targets {
				end := i + len(target)
				if strings.HasPrefix(s[i:], target) && (end == len(s) || s[end] == '/' || separates(s[end])) {
					out.WriteString(r.sources[target])
					i = end
					continue next
				}
			}
		}
		out.WriteByte(s[i])
		i++
	}
	return out.String()
}

// All rewrites each of `list`.
func (r Rewriter) All(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = r.Path(s)
	}
	return out
}

func separates(c byte) bool { return strings.IndexByte("=:,;\"'`|&<>@ \t\n()[]{}", c) >= 0 }
