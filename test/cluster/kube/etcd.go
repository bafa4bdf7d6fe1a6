package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdCommand is a single etcd member without the peer port: etcd's own main lives in a package that cannot be
// linked with the API server's flags, and its defaults are those of a durable cluster.
func etcdCommand() *cobra.Command {
	var options etcdOptions
	command := &cobra.Command{
		Use:           "etcd",
		Short:         "A single etcd member",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(*cobra.Command, []string) error { return runEtcd(options) },
	}
	flags := command.Flags()
	flags.StringVar(&options.dataDir, "data-dir", "", "folder of the database; made if absent")
	flags.StringVar(&options.listenClient, "listen-client", "", "address for clients, as https://127.0.0.1:2379")
	flags.StringVar(&options.certFile, "cert-file", "", "serving certificate (PEM)")
	flags.StringVar(&options.keyFile, "key-file", "", "key of the serving certificate (PEM)")
	flags.StringVar(&options.clientCAFile, "client-ca-file", "", "only clients with a certificate of this CA are let in (PEM)")
	flags.BoolVar(&options.noFsync, "no-fsync", false, "survive kill -9, but not a power cut; much less disk traffic")
	for _, name := range []string{"data-dir", "listen-client", "cert-file", "key-file", "client-ca-file"} {
		_ = command.MarkFlagRequired(name)
	}
	return command
}

type etcdOptions struct {
	dataDir, listenClient           string
	certFile, keyFile, clientCAFile string
	noFsync                         bool
}

func (o etcdOptions) config() (*embed.Config, error) {
	client, err := url.Parse(o.listenClient)
	if err != nil || client.Scheme != "https" || client.Port() == "" {
		return nil, fmt.Errorf("--listen-client=%q: want https://ADDRESS:PORT", o.listenClient)
	}
	// A member of one has no peer to talk to, but etcd always listens for them: any free port will do, and a client
	// certificate is demanded there as well.
	peer := url.URL{Scheme: "https", Host: client.Hostname() + ":0"}

	config := embed.NewConfig()
	config.Dir = o.dataDir
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.ClientTLSInfo = transport.TLSInfo{
		CertFile: o.certFile, KeyFile: o.keyFile, TrustedCAFile: o.clientCAFile, ClientCertAuth: true,
	}
	config.PeerTLSInfo = config.ClientTLSInfo
	config.UnsafeNoFsync = o.noFsync
	config.LogLevel = "warn"
	// Zero, which is what it is without etcd's own flags, calls every request slow in the log.
	config.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	config.AutoCompactionMode, config.AutoCompactionRetention = "revision", "1000"
	return config, nil
}

func runEtcd(options etcdOptions) error {
	config, err := options.config()
	if err != nil {
		return err
	}
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("etcd in %s: %w", options.dataDir, err)
	}
	defer etcd.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	select {
	case <-stop:
		return nil
	case err := <-etcd.Err():
		return fmt.Errorf("etcd in %s: %w", options.dataDir, err)
	}
}
