// Package process looks at the machine's processes: who descends from whom, how much memory they hold, and handles that
// cannot be confused by a reused process id.
package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Handle is a process held by a pidfd, so that a signal never reaches a stranger with the same id.
type Handle struct {
	PID   int
	pidfd int
}

// Open takes hold of the process `pid` that started at `startTicks`. It fails with os.ErrProcessDone if that process has
// ended, also while it is a zombie that nobody has reaped.
func Open(pid int, startTicks string) (*Handle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	h := &Handle{PID: pid, pidfd: fd}
	// The pidfd pins whoever has the id now; only then is the start time looked at.
	if now, err := StartTicks(pid); err != nil || now != startTicks || h.ended(0) {
		h.Close()
		return nil, os.ErrProcessDone
	}
	return h, nil
}

func (h *Handle) ended(timeoutMilliseconds int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.pidfd), Events: unix.POLLIN}}, timeoutMilliseconds)
		if !errors.Is(err, unix.EINTR) {
			return n > 0 || err != nil
		}
	}
}

// Wait returns when the process has ended.
func (h *Handle) Wait() { h.ended(-1) }

// Signal sends a signal; one to a process that has ended is dropped.
func (h *Handle) Signal(s syscall.Signal) { _ = unix.PidfdSendSignal(h.pidfd, s, nil, 0) }

// Close lets go of the process.
func (h *Handle) Close() { _ = unix.Close(h.pidfd) }

// Kill ends the process and everything that descends from it, deepest hold last, and returns when it has ended.
func (h *Handle) Kill() {
	for range 40 {
		tree := Descendants(h.PID)
		for _, pid := range tree {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(tree) == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.Signal(syscall.SIGKILL)
	h.ended(5000)
}

// StartTicks is the start time of a process, in clock ticks since boot.
func StartTicks(pid int) (string, error) {
	f, err := stat(pid)
	if err != nil {
		return "", err
	}
	return f[19], nil
}

// stat returns the fields of /proc/<pid>/stat after the command's name: [0] is the state, [1] the parent, [19] the start.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	return f, nil
}

// Descendants lists the living processes below `root`, in the numbering of the mounted /proc.
func Descendants(root int) []int {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f, err := stat(pid); err == nil && f[0] != "Z" {
			parents[pid], _ = strconv.Atoi(f[1])
		}
	}
	return below(root, parents)
}

// below lists the keys of `parents` (child to parent) that have `root` among their ancestors.
func below(root int, parents map[int]int) []int {
	var out []int
	for pid := range parents {
		p := parents[pid]
		for steps := 0; p != root && p > 1 && steps < len(parents); steps++ {
			p = parents[p]
		}
		if p == root {
			out = append(out, pid)
		}
	}
	return out
}

// PrivateResidentBytes sums the resident memory of processes without what they share (text pages of programs, mapped files).
func PrivateResidentBytes(pids []int) int64 {
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue
		}
		if f := strings.Fields(string(b)); len(f) > 2 {
			resident, _ := strconv.ParseInt(f[1], 10, 64)
			shared, _ := strconv.ParseInt(f[2], 10, 64)
			sum += (resident - shared) * int64(os.Getpagesize())
		}
	}
	return sum
}
