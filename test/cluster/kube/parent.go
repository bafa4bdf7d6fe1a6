package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
)

// dieWithParentVariable names a file descriptor, the read end of a pipe whose write end only the starting process
// holds. When that process ends, however it ends, the read returns and this one goes too.
const dieWithParentVariable = "KUBE_DIE_WITH_FD"

// dieWithParent ends this process when the one that started it is gone, if that one asked for it.
//
// A pipe and not PR_SET_PDEATHSIG: that signal is tied to the parent's thread, and is lost if the parent is gone before
// it is set.
func dieWithParent() error {
	value := os.Getenv(dieWithParentVariable)
	if value == "" {
		return nil
	}
	descriptor, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		return fmt.Errorf("%s=%q is not a file descriptor: %w", dieWithParentVariable, value, err)
	}
	pipe := os.NewFile(uintptr(descriptor), dieWithParentVariable)
	go func() {
		_, _ = io.Copy(io.Discard, pipe)
		// No orderly shutdown: nobody is left to want the data.
		os.Exit(1)
	}()
	return nil
}
