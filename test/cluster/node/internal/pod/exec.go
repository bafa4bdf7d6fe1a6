package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fovea.dev/node/internal/shimapi"
)

const (
	// What a program started by exec may still have in its pipes when it has ended is waited for this long: a background process
	// can hold them for ever.
	outputDrain = 2 * time.Second
	// probeOutputBytes is how much of a probe command's output an event shows.
	probeOutputBytes = 1024
)

// ErrNoContainer says that the pod has no container of that name.
var ErrNoContainer = errors.New("no such container")

// Streams are those of a program started in a container; any may be nil.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool // one pty for all three
	// Resize has the terminal's sizes.
	Resize func(set func(rows, columns uint16))
}

func (w *Worker) container(name string) (*container, error) {
	for _, c := range w.containers {
		if c.spec.Name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNoContainer, name)
}

// Exec runs a program in a container until it ends, and returns its exit code.
func (w *Worker) Exec(ctx context.Context, name string, argv []string, s Streams) (int, error) {
	c, err := w.container(name)
	if err != nil {
		return 0, err
	}
	return w.exec(ctx, c, argv, s)
}

func (w *Worker) execCaptured(ctx context.Context, c *container, argv []string) (int, string, error) {
	output := &limitedBuffer{limit: probeOutputBytes}
	code, err := w.exec(ctx, c, argv, Streams{Stdout: output})
	return code, string(output.data), err
}

type limitedBuffer struct {
	data  []byte
	limit int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p[:min(len(p), b.limit-len(b.data))]...)
	return len(p), nil
}

func (w *Worker) exec(ctx context.Context, c *container, argv []string, s Streams) (int, error) {
	w.mu.Lock()
	run, paths := c.run, c.paths
	w.mu.Unlock()
	if run == nil || !run.Alive() {
		return 0, fmt.Errorf("container %s is not running", c.spec.Name)
	}
	dir, err := os.Open(run.Dir)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	conn, err := shimapi.Dial(dir)
	if err != nil {
		return 0, fmt.Errorf("container %s: %w", c.spec.Name, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // the shim then kills the program

	request := shimapi.ExecRequest{Argv: paths.All(argv), TTY: s.TTY}
	pipes := &pipes{}
	defer pipes.closeOurs()
	var rights []int
	if !s.TTY {
		files, err := pipes.open(s)
		if err != nil {
			return 0, err
		}
		for i, f := range files {
			if f != nil {
				request.Streams[i] = true
				rights = append(rights, int(f.Fd()))
			}
		}
	}
	b, err := json.Marshal(request)
	if err != nil {
		return 0, err
	}
	if len(b) > shimapi.MaxExecRequestBytes {
		return 0, fmt.Errorf("the command has %d bytes; %d are allowed", len(b), shimapi.MaxExecRequestBytes)
	}
	if _, _, err := conn.WriteMsgUnix(b, syscall.UnixRights(rights...), nil); err != nil {
		return 0, err
	}
	pipes.closeTheirs()
	var early []byte
	if s.TTY {
		data, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
		if err != nil {
			return 0, err
		}
		if master := passedFile(oob[:oobn]); master != nil {
			pipes.terminal(ctx, master, s)
		} else {
			early = data[:n] // the reply already: there was no pty
		}
	}
	rest, err := io.ReadAll(conn)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	var reply shimapi.ExecReply
	if err == nil {
		err = json.Unmarshal(append(early, rest...), &reply)
	}
	if err != nil {
		return 0, fmt.Errorf("container %s ended during the exec: %w", c.spec.Name, err)
	}
	pipes.drain()
	if reply.Error != "" {
		return reply.Code, errors.New(reply.Error)
	}
	return reply.Code, nil
}

func passedFile(oob []byte) *os.File {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	syscall.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "ptmx")
}

// pipes join the streams of the caller to those of the program.
type pipes struct {
	ours, theirs []*os.File
	outputs      []chan struct{} // closed when all of one output has been copied
}

func (p *pipes) open(s Streams) (files [3]*os.File, err error) {
	if s.Stdin != nil {
		r, write, err := os.Pipe()
		if err != nil {
			return files, err
		}
		files[0] = r
		p.theirs = append(p.theirs, r)
		go func() { _, _ = io.Copy(write, s.Stdin); write.Close() }()
	}
	for i, out := range []io.Writer{s.Stdout, s.Stderr} {
		if out == nil {
			continue
		}
		r, write, err := os.Pipe()
		if err != nil {
			return files, err
		}
		files[i+1] = write
		p.theirs = append(p.theirs, write)
		p.ours = append(p.ours, r)
		p.copyOut(out, r)
	}
	return files, nil
}

func (p *pipes) copyOut(to io.Writer, from *os.File) {
	done := make(chan struct{})
	p.outputs = append(p.outputs, done)
	go func() { _, _ = io.Copy(to, from); close(done) }()
}

func (p *pipes) terminal(ctx context.Context, master *os.File, s Streams) {
	p.ours = append(p.ours, master)
	if s.Stdin != nil {
		go func() { _, _ = io.Copy(master, s.Stdin) }()
	}
	if s.Resize != nil {
		fd := int(master.Fd())
		go s.Resize(func(rows, columns uint16) {
			_ = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
		})
	}
	if s.Stdout != nil {
		p.copyOut(s.Stdout, master)
	}
}

func (p *pipes) closeTheirs() {
	for _, f := range p.theirs {
		f.Close()
	}
	p.theirs = nil
}

func (p *pipes) closeOurs() {
	p.closeTheirs()
	for _, f := range p.ours {
		f.Close()
	}
}

func (p *pipes) drain() {
	timeout := time.After(outputDrain)
	for _, done := range p.outputs {
		select {
		case <-done:
		case <-timeout:
			return
		}
	}
}
