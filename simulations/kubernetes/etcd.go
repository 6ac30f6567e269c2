package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd serves one etcd of one member until ctx ends, and says on standard output when it is ready.
func runEtcd(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	var listen netip.AddrPort
	flags.TextVar(&listen, "listen", netip.AddrPort{}, "where clients connect, `IP:PORT`; in plain text, so keep it on loopback")
	dir := flags.String("dir", "", "`directory` of the data; what is there already is served again")
	parse(flags, args)

	etcd, err := embed.StartEtcd(etcdConfig(listen, *dir))
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer etcd.Close()

	select {
	case <-etcd.Server.ReadyNotify():
	case <-etcd.Server.StopNotify():
		return errors.New("etcd stopped before it was ready")
	case <-ctx.Done():
		return nil
	}
	ready := struct {
		Ready  string `json:"ready"`
		Listen string `json:"listen"`
	}{"etcd", etcd.Clients[0].Addr().String()}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return fmt.Errorf("say that etcd is ready: %w", err)
	}

	select {
	case err := <-etcd.Err():
		return fmt.Errorf("serve etcd: %w", err)
	case <-ctx.Done():
		return nil
	}
}

func etcdConfig(listen netip.AddrPort, dir string) *embed.Config {
	clients := url.URL{Scheme: "http", Host: listen.String()}
	config := embed.NewConfig()
	config.Name = "prismesh"
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.Dir = dir
	config.ListenClientUrls = []url.URL{clients}
	config.AdvertiseClientUrls = []url.URL{clients}
	// A lone member has no peers: without a listener for them there is one port less to collide.
	config.ListenPeerUrls = nil
	// The data need not survive a crash of the machine, and a slow disk must not slow a test.
	config.UnsafeNoFsync = true
	// gRPC is all that API servers speak.
	config.EnableGRPCGateway = false
	config.LogLevel = "warn"
	return config
}
