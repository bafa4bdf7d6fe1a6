// container-shim runs one container in a run folder and outlives the node that started it. See internal/shim.
package main

import (
	"fmt"
	"os"
	"runtime"

	"fovea.dev/node/internal/shim"
)

func main() {
	// Ambient capabilities belong to a thread: the mount view must be built by the one the process started with.
	runtime.LockOSThread()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: container-shim RUN_FOLDER (started by process-node)")
		os.Exit(2)
	}
	shim.Run(os.Args[1])
}
