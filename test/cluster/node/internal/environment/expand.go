// Package environment works out the environment of a container: $(VAR) references, the downward API, ConfigMap and Secret
// keys, and the variables of Services.
package environment

import "strings"

// Expand replaces $(NAME) by values[NAME]; $$ is a dollar; an unknown reference stays as it is.
// https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
func Expand(s string, values map[string]string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			out.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			out.WriteByte('$')
			i++
		case '(':
			length := strings.IndexByte(s[i+2:], ')')
			if length < 0 {
				out.WriteByte('$')
				continue
			}
			name := s[i+2 : i+2+length]
			if value, ok := values[name]; ok {
				out.WriteString(value)
			} else {
				out.WriteString("$(" + name + ")")
			}
			i += 2 + length
		default:
			out.WriteByte('$')
		}
	}
	return out.String()
}

// ExpandAll expands each of `list`.
func ExpandAll(list []string, values map[string]string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = Expand(s, values)
	}
	return out
}
