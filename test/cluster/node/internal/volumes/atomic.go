package volumes

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// content is one file of a volume that is made of API objects.
type content struct {
	data []byte
	mode os.FileMode
}

const dataLink = "..data"

// writeAtomically makes `dir` show exactly `files` (by relative path), all changed at once, in the kubelet's layout: each is a link
// through ..data, which a rename points to a new folder. Nothing is written where nothing has changed.
func writeAtomically(dir string, files map[string]content) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	link := filepath.Join(dir, dataLink)
	old, _ := os.Readlink(link)
	if old != "" && holds(filepath.Join(dir, old), files) {
		return nil
	}
	version := ".." + time.Now().UTC().Format("2006_01_02_15_04_05.000000000")
	if err := os.MkdirAll(filepath.Join(dir, version), 0o755); err != nil {
		return err
	}
	for name, file := range files {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("path %q leaves the volume", name)
		}
		path := filepath.Join(dir, version, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, file.data, 0o600); err != nil {
			return err
		}
		if err := os.Chmod(path, file.mode); err != nil {
			return err
		}
	}
	aside := link + "_new"
	if err := os.Remove(aside); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.Symlink(version, aside); err != nil {
		return err
	}
	if err := os.Rename(aside, link); err != nil {
		return err
	}
	return tidy(dir, version, files)
}

// tidy links the top names of `files` and removes everything else but the current version.
func tidy(dir, version string, files map[string]content) error {
	want := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		want[top] = true
		if err := os.Symlink(filepath.Join(dataLink, top), filepath.Join(dir, top)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !want[e.Name()] && e.Name() != dataLink && e.Name() != version {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// holds says whether the folder has exactly these files.
func holds(dir string, files map[string]content) bool {
	count := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		count++
		name, _ := filepath.Rel(dir, path)
		want, ok := files[name]
		have, err := os.ReadFile(path)
		if err != nil || !ok || !bytes.Equal(have, want.data) {
			return fs.ErrNotExist
		}
		return nil
	})
	return err == nil && count == len(files)
}
