package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fovea.dev/node/internal/process"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// processes are those of the container: started here, reaped here, and all below `root`.
type processes struct {
	root    int // this shim, in the numbering of the mounted /proc
	mu      sync.Mutex
	waiters map[int]chan syscall.WaitStatus
	started chan struct{} // wakes the reaper when it has nobody to wait for
}

func newProcesses() *processes {
	return &processes{waiters: map[int]chan syscall.WaitStatus{}, started: make(chan struct{}, 1)}
}

// start runs a program in a session of its own; with tty its stdin becomes the controlling terminal.
func (p *processes) start(argv, env []string, cwd string, stdio []*os.File, tty bool) (int, <-chan syscall.WaitStatus, error) {
	program, err := lookPath(argv[0], env, cwd)
	if err != nil {
		return 0, nil, err
	}
	attr := &syscall.ProcAttr{Dir: cwd, Env: env, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: tty}}
	for _, f := range stdio {
		attr.Files = append(attr.Files, f.Fd())
	}
	// Held over the fork, so that the reaper finds the waiter even of a program that ends at once.
	p.mu.Lock()
	defer p.mu.Unlock()
	pid, err := syscall.ForkExec(program, argv, attr)
	if err != nil {
		if st, statErr := os.Stat(cwd); statErr != nil {
			return 0, nil, fmt.Errorf("working directory: %w", statErr)
		} else if !st.IsDir() {
			return 0, nil, fmt.Errorf("working directory %s is not a folder", cwd)
		}
		return 0, nil, fmt.Errorf("exec %q: %w", program, err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	p.waiters[pid] = ended
	select {
	case p.started <- struct{}{}:
	default:
	}
	return pid, ended, nil
}

// reap collects every child, its own and those whose parents have died, for ever.
func (p *processes) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil { // no child now; orphans come only from a child that was started
			<-p.started
			continue
		}
		p.mu.Lock()
		if ended := p.waiters[pid]; ended != nil {
			ended <- status
			delete(p.waiters, pid)
		}
		p.mu.Unlock()
	}
}

// killAll kills every process of the container but this shim.
func (p *processes) killAll() {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL) // everything in the pid namespace but its first
		return
	}
	for range 40 {
		tree := process.Descendants(p.root)
		if len(tree) == 0 {
			return
		}
		for _, pid := range tree {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// lookPath finds a program the way execvp does, by the PATH of the program's own environment.
func lookPath(name string, env []string, cwd string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	if strings.Contains(name, "/") {
		return filepath.Join(cwd, name), nil
	}
	path := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	for dir := range strings.SplitSeq(path, ":") {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH (%s)", name, path)
}

func setAffinity(cpus []int) {
	if len(cpus) == 0 {
		return
	}
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	// Best effort: the set may hold a processor this process may no longer use.
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		var tid int
		if _, err := fmt.Sscan(task.Name(), &tid); err == nil {
			_ = unix.SchedSetaffinity(tid, &set)
		}
	}
	_ = unix.SchedSetaffinity(0, &set)
}

// dropPrivileges gives up every capability in the user namespace, on every thread, for this process and all it starts:
// a program that runs as user 0 must not get them back when it is executed.
func dropPrivileges() error {
	const securebitNoRoot = 1<<0 | 1<<1 // SECBIT_NOROOT and its lock
	// Needs CAP_SETPCAP, which only a shim with the id 0 has; for the others executing grants nothing anyway.
	if os.Getuid() == 0 && os.Getpid() == 1 {
		if _, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, securebitNoRoot, 0); e != 0 {
			return fmt.Errorf("PR_SET_SECUREBITS: %w", e)
		}
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("PR_CAP_AMBIENT: %w", e)
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", e)
	}
	if os.Getpid() != 1 {
		return nil // no namespace of its own: it has what the user has
	}
	return capsetNone()
}
