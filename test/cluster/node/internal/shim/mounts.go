package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"fovea.dev/node/internal/shimapi"
)

// mountTree is the mounts by path: a node is a path component, with the mount that belongs exactly there.
type mountTree struct {
	children map[string]*mountTree
	mount    *shimapi.Mount
}

// newMountTree orders mounts by the paths they really have on this machine (/var/run is /run). Of two at one path the last
// counts, so that a pod's own mount wins over the node's.
func newMountTree(mounts []shimapi.Mount, resolve func(string) string) *mountTree {
	root := &mountTree{}
	for i := range mounts {
		t := root
		for part := range strings.SplitSeq(strings.Trim(resolve(mounts[i].Target), "/"), "/") {
			if t.children == nil {
				t.children = map[string]*mountTree{}
			}
			if t.children[part] == nil {
				t.children[part] = &mountTree{}
			}
			t = t.children[part]
		}
		t.mount = &mounts[i]
	}
	return root
}

// resolveLinks follows the symbolic links of the part of a path that exists.
func resolveLinks(path string) string {
	path = filepath.Clean(path)
	rest := ""
	for existing := path; existing != "/"; existing = filepath.Dir(existing) {
		if real, err := filepath.EvalSymlinks(existing); err == nil {
			return filepath.Join(real, rest)
		}
		rest = filepath.Join(filepath.Base(existing), rest)
	}
	return path
}

// buildMountView makes `newRoot` the root: a tmpfs of recursive binds of the machine's top folders, with the container's mounts on
// top. A folder is mirrored entry by entry only where it lies on the way to a mount point that does not exist.
func buildMountView(newRoot string, mounts []shimapi.Mount) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make the mounts slaves: %w", err)
	}
	tree := newMountTree(mounts, resolveLinks)
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", newRoot, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("tmpfs on %s: %w", newRoot, err)
	}
	if err := mirror("/", newRoot, tree); err != nil {
		return err
	}
	// Where /proc is masked, as inside Docker, another one is forbidden and the machine's stays.
	if err := unix.Mount("proc", newRoot+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		fmt.Fprintln(os.Stderr, "no /proc of its own:", err)
	}
	if err := privatePty(newRoot + "/dev"); err != nil {
		fmt.Fprintln(os.Stderr, "no terminals of its own:", err)
	}
	old := newRoot + "/.old"
	if err := os.Mkdir(old, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(newRoot, old); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/.old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return os.Remove("/.old")
}

// privatePty mounts a devpts of its own: a bound /dev/ptmx does not find its /dev/pts.
func privatePty(dev string) error {
	if err := os.MkdirAll(dev+"/pts", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"); err != nil {
		return err
	}
	return os.Symlink("pts/ptmx", dev+"/ptmx")
}

func bind(source, target string, readOnly bool) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s at %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return err
	}
	// Flags that the machine's mount has are locked in a user namespace: leaving one out is EPERM.
	locked := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME)
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|locked, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}

// makeMountPoint makes what `source` can be bound on: a folder for a folder, else a file.
func makeMountPoint(source, target string) error {
	st, err := os.Stat(source)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return os.MkdirAll(target, 0o755)
	}
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// attach binds the mount of `t` at `target` and then those below it.
func attach(target string, t *mountTree) error {
	if err := makeMountPoint(t.mount.Source, target); err != nil {
		return fmt.Errorf("mount point %s: %w", t.mount.Target, err)
	}
	if err := bind(t.mount.Source, target, t.mount.ReadOnly); err != nil {
		return err
	}
	return attachBelow(target, t)
}

// attachBelow attaches the mounts below `target`, a folder that is itself bound already.
func attachBelow(target string, t *mountTree) error {
	for name, child := range t.children {
		path := filepath.Join(target, name)
		if child.mount != nil {
			if err := attach(path, child); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := attachBelow(path, child); err != nil {
			return err
		}
	}
	return nil
}

// pointsExist says whether every mount point below `path` is there, so that binding the whole folder is enough.
func pointsExist(path string, t *mountTree) bool {
	for name, child := range t.children {
		p := filepath.Join(path, name)
		if _, err := os.Lstat(p); err != nil {
			return false
		}
		if child.mount == nil && !pointsExist(p, child) {
			return false
		}
	}
	return true
}

// keepDevice says which entries of /dev a container sees: each costs a bind mount, and a machine has some 200 of them (20 ms).
func keepDevice(name string) bool {
	switch name {
	case "null", "zero", "full", "random", "urandom", "tty", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "net", "dri", "kvm", "fuse":
		return true
	}
	return strings.HasPrefix(name, "nvidia")
}

// mirror fills the folder `to` with the entries of the machine's folder `from`, each bound, and the mounts of `t`.
func mirror(from, to string, t *mountTree) error {
	entries, err := os.ReadDir(from)
	if err != nil && !os.IsNotExist(err) && !os.IsPermission(err) {
		return err
	}
	seen := map[string]bool{}
	for _, e := range entries {
		child := t.children[e.Name()]
		if from == "/dev" && child == nil && !keepDevice(e.Name()) {
			continue
		}
		seen[e.Name()] = true
		if err := mirrorEntry(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), e, child); err != nil {
			return err
		}
	}
	for name, child := range t.children {
		if seen[name] {
			continue
		}
		path := filepath.Join(to, name)
		if child.mount != nil {
			if err := attach(path, child); err != nil {
				return err
			}
			continue
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if err := mirror(filepath.Join(from, name), path, child); err != nil {
			return err
		}
	}
	return nil
}

func mirrorEntry(from, to string, e os.DirEntry, t *mountTree) error {
	switch {
	case t != nil && t.mount != nil:
		return attach(to, t)
	case from == "/dev" || (t != nil && e.IsDir() && !pointsExist(from, t)):
		if t == nil {
			t = &mountTree{}
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		return mirror(from, to, t)
	case e.Type()&os.ModeSymlink != 0:
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(link, to)
	}
	// An entry that this user may not bind is left out, as it could not be opened either.
	if makeMountPoint(from, to) != nil || bind(from, to, false) != nil {
		return nil
	}
	if t != nil {
		return attachBelow(to, t)
	}
	return nil
}
