package pod

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"fovea.dev/node/internal/shimapi"
)

// LogFile is a log of a container of a pod.
type LogFile struct {
	Path string
	// Ended says whether nothing more will be written to it.
	Ended func() bool
}

// Log is the log of a container's last start, or of the one before.
func (w *Worker) Log(name string, previous bool) (LogFile, error) {
	c, err := w.container(name)
	if err != nil {
		return LogFile{}, err
	}
	w.mu.Lock()
	latest := latestRun(c.dir)
	w.mu.Unlock()
	if previous {
		latest--
	}
	path := filepath.Join(c.runDir(int32(latest)), shimapi.LogFile)
	if _, err := os.Stat(path); latest < 0 || err != nil {
		if previous {
			return LogFile{}, fmt.Errorf("previous terminated container %q in pod %q not found", name, w.Pod().Name)
		}
		return LogFile{}, fmt.Errorf("container %q in pod %q is waiting to start", name, w.Pod().Name)
	}
	return LogFile{Path: path, Ended: func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return c.run == nil || c.run.Dir != filepath.Dir(path)
	}}, nil
}

// FinishedLog is the last log of a container, in the folder of a pod that has no worker.
func FinishedLog(podDir, container string) (path string, ok bool) {
	dir := filepath.Join(podDir, "containers", container)
	latest := latestRun(dir)
	if !filepath.IsLocal(container) || latest < 0 {
		return "", false
	}
	return filepath.Join(dir, strconv.Itoa(latest), shimapi.LogFile), true
}
