package shim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fovea.dev/node/internal/shimapi"
)

const (
	// A longer line is written in parts, tagged P, as the CRI log format has it.
	logLineBytes = 16 * 1024
	// The log is turned over at this size, and one older part is kept.
	logRotateBytes = 10 << 20
)

// logWriter writes the container's stdout and stderr into the run folder's log.
type logWriter struct {
	runDir  *os.File
	mu      sync.Mutex
	file    *os.File
	written int64
	copies  sync.WaitGroup
}

func newLogWriter(runDir *os.File) (*logWriter, error) {
	l := &logWriter{runDir: runDir}
	return l, l.open()
}

func (l *logWriter) open() error {
	fd, err := unix.Openat(int(l.runDir.Fd()), shimapi.LogFile, unix.O_CREAT|unix.O_APPEND|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	l.file, l.written = os.NewFile(uintptr(fd), shimapi.LogFile), 0
	return nil
}

// pipes returns stdin (empty), stdout and stderr for the program, and copies what comes out of the last two.
func (l *logWriter) pipes() ([]*os.File, error) {
	stdin, err := os.Open("/dev/null")
	if err != nil {
		return nil, err
	}
	files := []*os.File{stdin}
	for _, stream := range []string{"stdout", "stderr"} {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		files = append(files, w)
		l.copies.Add(1)
		go l.copy(r, stream)
	}
	return files, nil
}

func (l *logWriter) copy(from io.Reader, stream string) {
	defer l.copies.Done()
	lines := bufio.NewReaderSize(from, logLineBytes)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			tag := "P"
			if line[len(line)-1] == '\n' {
				line, tag = line[:len(line)-1], "F"
			} else if errors.Is(err, io.EOF) {
				tag = "F"
			}
			l.write(fmt.Appendf(nil, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), stream, tag, line))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (l *logWriter) write(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.written > logRotateBytes {
		dir := int(l.runDir.Fd())
		if unix.Renameat(dir, shimapi.LogFile, dir, shimapi.RotatedLogFile) == nil {
			old := l.file
			if l.open() == nil {
				old.Close()
			}
		}
	}
	// A full disk must not stop the program: its output is lost, not its work.
	n, _ := l.file.Write(line)
	l.written += int64(n)
}

// drain waits until both streams have ended, or for `timeout`.
func (l *logWriter) drain(timeout time.Duration) {
	done := make(chan struct{})
	go func() { l.copies.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(timeout):
	}
}
