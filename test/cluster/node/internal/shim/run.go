// Package shim is the supervisor of one container. In its own user, mount, pid and uts namespaces (or in none) it builds the
// mount view, starts the program, writes its log in CRI format, reaps, serves exec on a Unix socket, watches the memory
// limit, and leaves an exit record. The node may die and come back meanwhile.
//
// Signals: SIGTERM, SIGINT and SIGHUP go to the program; SIGQUIT kills every process of the container.
package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fovea.dev/node/internal/process"
	"fovea.dev/node/internal/shimapi"
)

const (
	memoryPollInterval = 200 * time.Millisecond
	orphanPollInterval = time.Second
	// logDrainTimeout is how long output that is still in the pipes is waited for once every process is gone.
	logDrainTimeout = 500 * time.Millisecond
)

type shim struct {
	container shimapi.Container
	// runDir is held open: a mount of the container may hide its path.
	runDir    *os.File
	processes *processes
	cause     atomic.Value // shimapi.Cause
}

// Run runs the container of a run folder to its end.
func Run(dir string) {
	started := os.NewFile(shimapi.StatusDescriptor, "started")
	syscall.CloseOnExec(shimapi.StatusDescriptor)
	s := &shim{processes: newProcesses()}
	if err := s.run(dir, started); err != nil {
		now := time.Now()
		s.writeExit(shimapi.Exit{Code: 128, StartError: err.Error(), StartedAt: now, FinishedAt: now})
		fmt.Fprint(started, err)
	}
}

func (s *shim) run(dir string, started *os.File) error {
	var err error
	if s.runDir, err = os.Open(dir); err != nil {
		return err
	}
	c := &s.container
	if err := shimapi.ReadJSON(filepath.Join(dir, shimapi.ContainerFile), c); err != nil {
		return err
	}
	log, err := newLogWriter(s.runDir)
	if err != nil {
		return err
	}
	if err := s.writePID(); err != nil {
		return fmt.Errorf("write %s: %w", shimapi.PIDFile, err)
	}
	if _, err := fmt.Fprint(started, shimapi.Accepted); err != nil {
		return fmt.Errorf("the node is gone: %w", err)
	}
	socket, err := shimapi.Listen(s.runDir)
	if err != nil {
		return fmt.Errorf("exec socket: %w", err)
	}
	heartbeat, err := os.Open(c.Heartbeat)
	if err != nil {
		return fmt.Errorf("the node's heartbeat file: %w", err)
	}
	if c.Namespaces {
		if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
			return fmt.Errorf("sethostname %s: %w", c.Hostname, err)
		}
		if err := buildMountView(filepath.Join(dir, "root"), c.Mounts); err != nil {
			return fmt.Errorf("mounts: %w", err)
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the subreaper: %w", err)
	}
	if err := dropPrivileges(); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	setAffinity(c.CPUs)
	// The mounted /proc may still be the machine's, where a masked one forbids another: its own word for us is the right root.
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	root, err := strconv.Atoi(self)
	if err != nil {
		return fmt.Errorf("/proc/self is %q", self)
	}
	s.processes.root = root

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	output, err := log.pipes()
	if err != nil {
		return err
	}
	startedAt := time.Now()
	pid, ended, err := s.processes.start(c.Argv, c.Env, c.Cwd, output, false)
	for _, f := range output {
		f.Close()
	}
	if err != nil {
		return err
	}
	fmt.Fprint(started, shimapi.Started)
	started.Close()

	go s.processes.reap()
	go s.forward(signals, pid)
	go s.serveExec(socket)
	if c.MemoryLimitBytes > 0 {
		go s.watchMemory()
	}
	if c.OrphanSeconds > 0 {
		go s.watchNode(heartbeat)
	}
	status := <-ended
	exit := shimapi.Exit{Code: status.ExitStatus(), StartedAt: startedAt, FinishedAt: time.Now()}
	if status.Signaled() {
		exit.Signal = int(status.Signal())
		exit.Code = 128 + exit.Signal
	}
	if cause, ok := s.cause.Load().(shimapi.Cause); ok {
		exit.Cause = cause
	}
	s.processes.killAll() // whatever the program left behind
	log.drain(logDrainTimeout)
	s.writeExit(exit)
	return nil
}

// writePID records which process of the machine this is: /proc is still the machine's.
func (s *shim) writePID() error {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(self)
	if err != nil {
		return err
	}
	ticks, err := process.StartTicks(pid)
	if err != nil {
		return err
	}
	return s.write(shimapi.PIDFile, fmt.Appendf(nil, "%d %s\n", pid, ticks))
}

func (s *shim) writeExit(exit shimapi.Exit) {
	if s.runDir == nil {
		return
	}
	b, err := json.Marshal(exit)
	if err == nil {
		err = s.write(shimapi.ExitFile, b)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "exit record:", err)
	}
}

// write makes a file of the run folder, aside and renamed, through the open folder and not its path.
func (s *shim) write(name string, content []byte) error {
	dir, aside := int(s.runDir.Fd()), name+".new"
	fd, err := unix.Openat(dir, aside, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), aside)
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return unix.Renameat(dir, aside, dir, name)
}

func (s *shim) forward(signals <-chan os.Signal, pid int) {
	for sig := range signals {
		if sig == syscall.SIGQUIT {
			s.processes.killAll()
		} else {
			_ = syscall.Kill(pid, sig.(syscall.Signal))
		}
	}
}

func (s *shim) watchMemory() {
	for range time.Tick(memoryPollInterval) {
		if process.PrivateResidentBytes(process.Descendants(s.processes.root)) > s.container.MemoryLimitBytes {
			s.cause.Store(shimapi.CauseMemory)
			s.processes.killAll()
		}
	}
}

// watchNode ends the container when the heartbeat has stood still for OrphanSeconds on this process's monotonic clock:
// comparing the file's time with the wall clock would kill everything after the machine was suspended.
func (s *shim) watchNode(heartbeat *os.File) {
	var last time.Time
	changed := time.Now()
	for range time.Tick(orphanPollInterval) {
		if st, err := heartbeat.Stat(); err == nil && !st.ModTime().Equal(last) {
			last, changed = st.ModTime(), time.Now()
		}
		if time.Since(changed) > time.Duration(s.container.OrphanSeconds)*time.Second {
			s.cause.Store(shimapi.CauseOrphaned)
			s.processes.killAll()
		}
	}
}
