package config

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/yaml"
)

// Image is what a container image is here: a command of this machine.
type Image struct {
	Command []string          `json:"command,omitempty"` // the image's ENTRYPOINT
	Args    []string          `json:"args,omitempty"`    // the image's CMD
	Workdir string            `json:"workdir,omitempty"` // default /
	Env     map[string]string `json:"env,omitempty"`
	Binds   map[string]string `json:"binds,omitempty"` // path in the container to path of this machine
}

// Images reads the file that maps image names to commands, again whenever it has changed.
type Images struct {
	path string
	mu   sync.Mutex
	read fileVersion
	all  map[string]Image
	err  error
}

type fileVersion struct {
	modified time.Time
	size     int64
}

// NewImages reads images from `path`, which need not exist yet.
func NewImages(path string) *Images { return &Images{path: path} }

// Find returns the image called `name`, or an error that lists the names there are.
func (i *Images) Find(name string) (Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if st, err := os.Stat(i.path); err != nil {
		i.all, i.err, i.read = nil, err, fileVersion{}
	} else if now := (fileVersion{st.ModTime(), st.Size()}); now != i.read {
		i.all, i.err = readImages(i.path)
		i.read = now
	}
	if image, ok := i.all[name]; ok {
		return image, nil
	}
	if i.err != nil {
		return Image{}, fmt.Errorf("image %q: the file that maps images to commands cannot be read: %w", name, i.err)
	}
	known := "none"
	if len(i.all) > 0 {
		known = strings.Join(slices.Sorted(maps.Keys(i.all)), ", ")
	}
	return Image{}, fmt.Errorf("image %q is not mapped to a command of this machine; add it to %s (known: %s)", name, i.path, known)
}

func readImages(path string) (map[string]Image, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Images map[string]Image `json:"images"`
	}
	if err := yaml.UnmarshalStrict(b, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file.Images, nil
}
