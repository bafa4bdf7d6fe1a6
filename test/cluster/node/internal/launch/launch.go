// Package launch starts shims, takes hold of those that an earlier node started, and reads how their containers ended. It knows
// nothing of Kubernetes.
package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fovea.dev/node/internal/process"
	"fovea.dev/node/internal/shimapi"
)

// killPatience is how long a shim may take to kill its container and write the exit record, before it is killed itself.
const killPatience = 3 * time.Second

// Run is one start of a container, alive or ended.
type Run struct {
	Dir       string
	Container shimapi.Container
	StartedAt time.Time
	// Ended is closed when the shim, and with it every process of the container, is gone.
	Ended  chan struct{}
	handle *process.Handle // nil once ended before it could be taken hold of
}

// IDs are what the container's one user is called inside: it is always the user of this process outside.
type IDs struct{ User, Group int }

// Start writes the container's description into `dir`, a new folder, and starts its shim. The error says why the program
// could not be started; an exit record with it is then in the folder.
func Start(shimPath, dir string, c shimapi.Container, ids IDs) (*Run, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	// It holds the values of Secrets.
	if err := os.WriteFile(filepath.Join(dir, shimapi.ContainerFile), b, 0o600); err != nil {
		return nil, err
	}
	stderr, err := os.Create(filepath.Join(dir, shimapi.ShimErrorFile))
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	answer, status, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	cmd := exec.Command(shimPath, dir)
	cmd.Env = []string{"GOMAXPROCS=2", "GOGC=200"}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{status} // becomes shimapi.StatusDescriptor
	cmd.Stderr = stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.Namespaces {
		inNamespaces(cmd.SysProcAttr, ids)
	}
	err = cmd.Start()
	status.Close()
	if err != nil {
		return nil, fmt.Errorf("start the shim: %w", err)
	}
	run := &Run{Dir: dir, Container: c, StartedAt: time.Now(), Ended: make(chan struct{})}
	if ticks, err := process.StartTicks(cmd.Process.Pid); err == nil {
		run.handle, _ = process.Open(cmd.Process.Pid, ticks)
	}
	go func() { _ = cmd.Wait(); close(run.Ended) }()
	text, _ := io.ReadAll(io.LimitReader(answer, 8<<10))
	message, accepted := strings.CutPrefix(string(text), shimapi.Accepted)
	if accepted && message == shimapi.Started {
		return run, nil
	}
	<-run.Ended
	if message == "" {
		said, _ := os.ReadFile(filepath.Join(dir, shimapi.ShimErrorFile))
		message = "the shim ended without an answer: " + strings.TrimSpace(string(said))
	}
	return nil, errors.New(message)
}

func inNamespaces(attr *syscall.SysProcAttr, ids IDs) {
	attr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: ids.User, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: ids.Group, HostID: os.Getgid(), Size: 1}}
	if ids.User != 0 {
		// Executing the shim drops the capabilities of any user but 0; building the mount view needs this one.
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
}

// Adopt takes hold of the run in `dir`. It is nil where no container was ever started there.
func Adopt(dir string) *Run {
	var c shimapi.Container
	if shimapi.ReadJSON(filepath.Join(dir, shimapi.ContainerFile), &c) != nil {
		return nil
	}
	run := &Run{Dir: dir, Container: c, Ended: make(chan struct{})}
	pidFile := filepath.Join(dir, shimapi.PIDFile)
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return nil // the shim starts nothing before it has written this
	}
	if st, err := os.Stat(pidFile); err == nil {
		run.StartedAt = st.ModTime()
	}
	var pid int
	var ticks string
	if _, err := fmt.Sscanf(string(b), "%d %s", &pid, &ticks); err == nil {
		run.handle, _ = process.Open(pid, ticks)
	}
	if run.handle == nil {
		close(run.Ended)
		return run
	}
	go func() { run.handle.Wait(); close(run.Ended) }()
	return run
}

// Alive says whether any process of the container may still live.
func (r *Run) Alive() bool {
	select {
	case <-r.Ended:
		return false
	default:
		return true
	}
}

// Terminate sends SIGTERM to the program.
func (r *Run) Terminate() {
	if r.handle != nil {
		r.handle.Signal(syscall.SIGTERM)
	}
}

// Kill ends every process of the container and returns when none lives.
func (r *Run) Kill() {
	if r.handle == nil {
		<-r.Ended
		return
	}
	r.handle.Signal(syscall.SIGQUIT) // the shim kills its container and writes the record
	select {
	case <-r.Ended:
	case <-time.After(killPatience):
		r.handle.Kill()
		<-r.Ended
	}
}

// Exit is how the container of an ended run ended. known is false where the shim left no record, having been killed itself.
func (r *Run) Exit() (exit shimapi.Exit, known bool) {
	if shimapi.ReadJSON(filepath.Join(r.Dir, shimapi.ExitFile), &exit) != nil {
		now := time.Now()
		return shimapi.Exit{Code: 137, Signal: int(syscall.SIGKILL), StartedAt: r.StartedAt, FinishedAt: now}, false
	}
	return exit, true
}

// TryNamespaces does the whole of it once, in a folder of its own below `dir`: clone flags, id maps, ambient
// capabilities, tmpfs, binds, pivot_root. An error is why this machine's user cannot have user namespaces.
func TryNamespaces(shimPath, dir, heartbeat string) error {
	tried, err := os.MkdirTemp(dir, "try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tried)
	volume := filepath.Join(tried, "volume")
	if err := os.Mkdir(volume, 0o755); err != nil {
		return err
	}
	run, err := Start(shimPath, filepath.Join(tried, "run"), shimapi.Container{
		Argv: []string{"true"}, Cwd: "/", Hostname: "try", Namespaces: true, Heartbeat: heartbeat,
		Mounts: []shimapi.Mount{{Source: volume, Target: "/no/such/folder", ReadOnly: true}},
	}, IDs{User: 1000, Group: 1000})
	if err != nil {
		return err
	}
	<-run.Ended
	if exit, known := run.Exit(); !known || exit.Code != 0 {
		return fmt.Errorf("a container that runs `true` exited with %d", exit.Code)
	}
	return nil
}
