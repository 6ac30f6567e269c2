// prismesh-kubernetes runs what prismesh balances, small enough for a test: one etcd, or one Kubernetes API server on
// top of it. Each is a process of its own, so that it can be stopped, killed and frozen like the real thing.
//
// Exit codes: 0 ended as asked, 1 could not start or go on, 2 wrong command line (nothing was started).
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	genericapiserver "k8s.io/apiserver/pkg/server"
)

func main() {
	commands := map[string]func(context.Context, []string) error{
		"etcd":      runEtcd,
		"apiserver": runAPIServer,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: prismesh-kubernetes etcd|apiserver FLAGS (--help lists them)")
		os.Exit(2)
	}

	// The first SIGTERM or SIGINT begins an orderly end, the second ends at once.
	ctx := genericapiserver.SetupSignalContext()
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "prismesh-kubernetes:", err)
		os.Exit(1)
	}
}

// parse reads the flags of one command, all of which need a value, and starts to watch standard input if told to.
func parse(flags *flag.FlagSet, args []string) {
	exitWithStdin := flags.Bool("exit-with-stdin", false, "exit at once when standard input ends")
	_ = flags.Parse(args) // flag.ExitOnError: it returns only when all is well
	var wrong []string
	if flags.NArg() > 0 {
		wrong = append(wrong, fmt.Sprintf("unexpected argument: %q", flags.Arg(0)))
	}
	flags.VisitAll(func(f *flag.Flag) {
		if f.Value.String() == "" {
			wrong = append(wrong, "flag needed: -"+f.Name)
		}
	})
	if len(wrong) > 0 {
		fmt.Fprintln(os.Stderr, strings.Join(wrong, "\n"))
		flags.Usage()
		os.Exit(2)
	}
	if *exitWithStdin {
		go exitWhenStdinEnds()
	}
}

// exitWhenStdinEnds ties this process to the one that holds the other end of its standard input: however that one
// dies, the pipe closes and nothing is orphaned. There is nobody left to be orderly for, hence no shutdown delay.
func exitWhenStdinEnds() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
