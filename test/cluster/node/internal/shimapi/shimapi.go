// Package shimapi is what the node and the container shim tell each other: the files of a run folder and the messages of
// the exec socket. A run folder belongs to one start of one container.
package shimapi

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"
)

// Files of a run folder.
const (
	ContainerFile   = "container.json"  // written by the node before the shim starts
	PIDFile         = "shim.pid"        // "<pid> <start time in clock ticks>" of the shim, written by the shim
	ExitFile        = "exit.json"       // written by the shim, aside and renamed, when the container has ended
	LogFile         = "log"             // CRI format: "<RFC3339Nano> stdout|stderr F|P <text>"
	RotatedLogFile  = "log.1"           // the part of the log before LogFile
	TerminationFile = "termination-log" // what the container sees at its terminationMessagePath
	ShimErrorFile   = "shim.err"        // the shim's stderr
	socketFile      = "exec.sock"
)

// StatusDescriptor is the descriptor on which the shim answers its start.
const StatusDescriptor = 3

// What a shim answers: Accepted once its PIDFile is written, then Started or an error message. A shim whose Accepted nobody
// takes starts nothing, so that there is never a container that a restarted node cannot find.
const (
	Accepted = "accepted\n"
	Started  = "started"
)

// Mount shows Source (a path of the machine) at Target (a path in the container).
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// Container is what a shim runs.
type Container struct {
	Argv     []string `json:"argv"`
	Env      []string `json:"env"` // "NAME=value"
	Cwd      string   `json:"cwd"`
	Hostname string   `json:"hostname"`
	// Namespaces says that the shim was started in user, mount, pid and uts namespaces of its own and builds the mount view.
	// Without them Mounts is not looked at: the node has rewritten the paths.
	Namespaces bool    `json:"namespaces"`
	Mounts     []Mount `json:"mounts,omitempty"`
	// MemoryLimitBytes bounds the private resident memory of all processes of the container; 0: no limit.
	MemoryLimitBytes int64 `json:"memoryLimitBytes,omitempty"`
	CPUs             []int `json:"cpus,omitempty"` // the processors it may use; empty: all
	// Heartbeat is a file the node touches while it lives; the shim ends the container when the file has not changed
	// for OrphanSeconds. 0: never.
	Heartbeat     string `json:"heartbeat"`
	OrphanSeconds int    `json:"orphanSeconds"`
}

// Cause says who ended a container, where that was not the program itself or a signal from the node.
type Cause string

const (
	CauseMemory   Cause = "Memory"   // it used more than its memory limit
	CauseOrphaned Cause = "Orphaned" // its node stayed away for longer than OrphanSeconds
)

// Exit is how a container ended.
type Exit struct {
	Code       int       `json:"code"` // 128 + Signal for one killed by a signal
	Signal     int       `json:"signal,omitempty"`
	Cause      Cause     `json:"cause,omitempty"`
	StartError string    `json:"startError,omitempty"` // the program could not be started at all
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
}

// ExecRequest is the one message of a client of the exec socket; the descriptors for which Streams is true travel with it, in
// the order stdin, stdout, stderr. With TTY the first answer is the single byte PtyFollows with the master side of a
// pty, which was opened inside the container. The last answer is an ExecReply.
type ExecRequest struct {
	Argv    []string `json:"argv"`
	TTY     bool     `json:"tty,omitempty"`
	Streams [3]bool  `json:"streams"`
}

// PtyFollows marks the message that carries the pty.
const PtyFollows = 'P'

// ExecReply is how an exec ended.
type ExecReply struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"` // it could not be started
}

// MaxExecRequestBytes bounds one ExecRequest.
const MaxExecRequestBytes = 1 << 20

// Listen opens the exec socket of a run folder. The path goes through the open folder's descriptor, as the path of a
// Unix socket may have 108 bytes only.
func Listen(runDir *os.File) (*net.UnixListener, error) {
	return net.ListenUnix("unix", socketAddress(runDir))
}

// Dial connects to the exec socket of a run folder.
func Dial(runDir *os.File) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, socketAddress(runDir))
}

func socketAddress(runDir *os.File) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", runDir.Fd(), socketFile)}
}

// ReadJSON reads a file of a run folder.
func ReadJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
