package kubeletapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/errdefs"
	"github.com/virtual-kubelet/virtual-kubelet/node/api"

	"fovea.dev/node/internal/pod"
	"fovea.dev/node/internal/shimapi"
)

// followPeriod is how often a log that is followed is looked at.
const followPeriod = 50 * time.Millisecond

func (s *server) logs(ctx context.Context, namespace, name, container string, o api.ContainerLogOpts) (io.ReadCloser, error) {
	file := pod.LogFile{Ended: func() bool { return true }}
	if w := s.pods.Worker(namespace, name); w != nil {
		var err error
		if file, err = w.Log(container, o.Previous); errors.Is(err, pod.ErrNoContainer) {
			return nil, errdefs.AsNotFound(err)
		} else if err != nil {
			return nil, errdefs.AsInvalidInput(err)
		}
	} else if path, ok := s.pods.FinishedLog(namespace, name, container); ok {
		file.Path = path
	} else {
		return nil, errdefs.NotFoundf("pod %s/%s has no container %s on this node", namespace, name, container)
	}
	if o.SinceSeconds > 0 {
		o.SinceTime = time.Now().Add(-time.Duration(o.SinceSeconds) * time.Second)
	}
	f, err := os.Open(file.Path)
	if err != nil {
		return nil, errdefs.AsNotFound(err)
	}
	r, w := io.Pipe()
	printer := &printer{to: w, options: o, left: o.LimitBytes}
	go func() {
		defer f.Close()
		w.CloseWithError(copyLog(ctx, f, file, o, printer.print))
	}()
	return r, nil
}

// errEnough stops a copy whose limit is reached.
var errEnough = errors.New("enough")

// copyLog prints the lines of a log: the part that was turned over before, the file, and while it is followed what comes.
func copyLog(ctx context.Context, f *os.File, file pod.LogFile, o api.ContainerLogOpts, print func(line []byte) error) error {
	lines := bufio.NewReader(f)
	first, err := firstLines(filepath.Join(filepath.Dir(file.Path), shimapi.RotatedLogFile), lines, o.Tail)
	if err != nil {
		return err
	}
	for _, line := range first {
		if err := print(line); err != nil {
			return ignoreEnough(err)
		}
	}
	var partial []byte
	for {
		// Asked before the read: a container that ends after it has still been read to its end the next time.
		ended := file.Ended()
		line, err := lines.ReadBytes('\n')
		partial = append(partial, line...)
		if err == nil {
			if err := print(partial); err != nil {
				return ignoreEnough(err)
			}
			partial = nil
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if turned := reopen(f, file.Path); turned != nil && o.Follow {
			defer turned.Close()
			f, lines = turned, bufio.NewReader(turned)
			continue
		}
		if !o.Follow || ended {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPeriod):
		}
	}
}

// reopen returns the log that has taken the place of `f`, if one has.
func reopen(f *os.File, path string) *os.File {
	now, err := os.Stat(path)
	if err != nil {
		return nil
	}
	if held, err := f.Stat(); err != nil || os.SameFile(held, now) {
		return nil
	}
	next, err := os.Open(path)
	if err != nil {
		return nil
	}
	return next
}

// firstLines returns the older part's lines, or with `tail` the last so many of both parts, which are then read.
func firstLines(older string, current *bufio.Reader, tail int) ([][]byte, error) {
	before, err := os.ReadFile(older)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	if tail == 0 {
		return splitLines(before), nil
	}
	now, err := io.ReadAll(current)
	if err != nil {
		return nil, err
	}
	all := append(splitLines(before), splitLines(now)...)
	return all[max(0, len(all)-tail):], nil
}

func splitLines(b []byte) [][]byte {
	return slices.DeleteFunc(bytes.SplitAfter(b, []byte("\n")), func(line []byte) bool { return len(line) == 0 })
}

func ignoreEnough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// printer writes lines of the CRI format as the options ask.
type printer struct {
	to      io.Writer
	options api.ContainerLogOpts
	left    int
}

func (p *printer) print(line []byte) error {
	fields := bytes.SplitN(line, []byte(" "), 4) // time, stream, tag, text with its line feed
	if len(fields) != 4 {
		return nil
	}
	if !p.options.SinceTime.IsZero() {
		if at, err := time.Parse(time.RFC3339Nano, string(fields[0])); err == nil && at.Before(p.options.SinceTime) {
			return nil
		}
	}
	text := fields[3]
	if string(fields[2]) == "P" {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	if p.options.Timestamps {
		text = slices.Concat(fields[0], []byte(" "), text)
	}
	if p.options.LimitBytes > 0 && len(text) >= p.left {
		if _, err := p.to.Write(text[:p.left]); err != nil {
			return err
		}
		return errEnough
	}
	p.left -= len(text)
	_, err := p.to.Write(text)
	return err
}
