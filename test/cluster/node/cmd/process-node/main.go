// process-node is a Kubernetes node whose containers are processes of this machine: no root and no container runtime.
//
//	process-node --config FILE           until SIGTERM; the containers go on, and the next one takes them over
//	process-node --config FILE --down    ends every container that is left, and returns when none lives
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"fovea.dev/node/internal/config"
	"fovea.dev/node/internal/node"
)

func main() {
	configFile := flag.String("config", "", "the node's configuration file")
	down := flag.Bool("down", false, "end every container that is left below stateDir, and exit")
	flag.Parse()
	if err := run(*configFile, *down); err != nil {
		fmt.Fprintln(os.Stderr, "process-node:", err)
		os.Exit(1)
	}
}

func run(configFile string, down bool) error {
	if configFile == "" || flag.NArg() > 0 {
		return fmt.Errorf("usage: process-node --config FILE [--down]")
	}
	c, err := config.Load(configFile)
	if err != nil {
		return err
	}
	if err := node.Lock(c); err != nil {
		return err
	}
	if down {
		return node.Sweep(c.PodsDir(), nil)
	}
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	shim := filepath.Join(filepath.Dir(executable), "container-shim")
	if _, err := os.Stat(shim); err != nil {
		return fmt.Errorf("the shim must lie beside process-node: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- node.Run(ctx, c, shim) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		// At once, and not by way of the workers: they must not take their cancelled checks for sick containers.
		return nil
	}
}
