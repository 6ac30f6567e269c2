package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	generatedopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	"k8s.io/apiserver/pkg/admission"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/scheme"
)

// apiServerFlags is what one API server is told.
type apiServerFlags struct {
	listen                    netip.AddrPort
	etcd                      string
	tlsCert, tlsKey, clientCA string
	shutdownDelay             time.Duration
}

// runAPIServer serves CustomResourceDefinitions and their objects until ctx ends and what was under way is done.
//
// It is the part of kube-apiserver that is published as a library, and stands on the same generic server: TLS, HTTP/2,
// watches, health endpoints and shutdown are the real ones. There are no pods, no namespaces, no tokens.
func runAPIServer(ctx context.Context, args []string) error {
	var told apiServerFlags
	flags := flag.NewFlagSet("apiserver", flag.ExitOnError)
	flags.TextVar(&told.listen, "listen", netip.AddrPort{}, "where clients connect, `IP:PORT`")
	flags.StringVar(&told.etcd, "etcd", "", "etcd's `URL`")
	flags.StringVar(&told.tlsCert, "tls-cert", "", "the server's certificate, a PEM `file`")
	flags.StringVar(&told.tlsKey, "tls-key", "", "its private key, a PEM `file`")
	flags.StringVar(&told.clientCA, "client-ca", "", "who signs clients' certificates, a PEM `file`")
	flags.DurationVar(&told.shutdownDelay, "shutdown-delay", 5*time.Second, "how long /readyz answers 500 after SIGTERM, before the port closes")
	parse(flags, args)

	server, err := newAPIServer(told)
	if err != nil {
		return fmt.Errorf("set up the API server: %w", err)
	}
	if err := server.PrepareRun().RunWithContext(ctx); err != nil {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

func newAPIServer(told apiServerFlags) (*genericapiserver.GenericAPIServer, error) {
	opts := apiServerOptions(told)
	if err := opts.ServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	if err := opts.Complete(); err != nil {
		return nil, err
	}
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	config, err := opts.Config()
	if err != nil {
		return nil, err
	}
	// With the services' informer in place, /readyz would wait for ever for services that no one serves.
	config.GenericConfig.SharedInformerFactory = nil

	// Schemas of custom resources are published only where version 2 of OpenAPI is on, and kubectl create and apply
	// check what they send against them.
	config.GenericConfig.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(
		generatedopenapi.GetOpenAPIDefinitions, openapinamer.NewDefinitionNamer(apiserver.Scheme, scheme.Scheme))

	completed := config.Complete()
	// The library expects an aggregator in front of it to answer discovery. Here is none, and kubectl needs it.
	completed.GenericConfig.EnableDiscovery = true
	server, err := completed.New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, err
	}
	return server.GenericAPIServer, nil
}

func apiServerOptions(told apiServerFlags) *options.CustomResourceDefinitionsServerOptions {
	opts := options.NewCustomResourceDefinitionsServerOptions(os.Stdout, os.Stderr)
	opts.ServerRunOptions.ShutdownDelayDuration = told.shutdownDelay

	recommended := opts.RecommendedOptions
	recommended.Etcd.StorageConfig.Transport.ServerList = []string{told.etcd}
	recommended.SecureServing.BindAddress = told.listen.Addr().AsSlice()
	recommended.SecureServing.BindPort = int(told.listen.Port())
	recommended.SecureServing.ServerCert.CertKey.CertFile = told.tlsCert
	recommended.SecureServing.ServerCert.CertKey.KeyFile = told.tlsKey
	recommended.Authentication.ClientCert.ClientCA = told.clientCA
	recommended.Features.EnableProfiling = false

	standAlone(recommended)
	return opts
}

// standAlone takes away what the library would ask of a second, complete API server: who a token belongs to, who may
// do what, which services, policies and flow schemas there are. What stays is certificates for who (and O=system:masters
// for may), and health for everyone.
func standAlone(recommended *genericoptions.RecommendedOptions) {
	// Inside a pod the library would find that second server by itself, and a test must not talk to it.
	os.Unsetenv("KUBERNETES_SERVICE_HOST")
	recommended.Authentication.RemoteKubeConfigFileOptional = true
	recommended.Authentication.SkipInClusterLookup = true
	recommended.Authorization.RemoteKubeConfigFileOptional = true
	recommended.CoreAPI = nil
	recommended.Admission = nil
	recommended.Features.EnablePriorityAndFairness = false
	// The only hook between the options and their use. Without CoreAPI there is no factory, and Config asks it for a
	// lister of services, of use only to conversion webhooks: that one is never started, so it needs no client.
	recommended.ExtraAdmissionInitializers = func(config *genericapiserver.RecommendedConfig) ([]admission.PluginInitializer, error) {
		config.SharedInformerFactory = informers.NewSharedInformerFactory(nil, 0)
		return nil, nil
	}
}
