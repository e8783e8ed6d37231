package runner

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/confine"
	"github.com/tocsinhq/tocsin/host/wasm"
	"github.com/tocsinhq/tocsin/host/wasm/script"
	"github.com/tocsinhq/tocsin/sdk"
	"github.com/tocsinhq/tocsin/sdk/process"
)

// Bounds of writable memory, in bytes, besides that of the instances.
const (
	memoryOfRunner   = 512 << 20
	memoryOfCompiler = 1536 << 20
)

// Child runs a child of the host when the arguments of the program ask for one, and returns its exit code. It reports false
// when they do not.
func Child(args []string) (code int, ok bool) {
	if len(args) == 0 || args[0] != RunWord && args[0] != CompileWord {
		return 0, false
	}
	setup, err := readSetup(args[1:])
	if err == nil {
		switch args[0] {
		case RunWord:
			err = run(setup)
		case CompileWord:
			err = compile(setup)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, sdk.CleanText(err.Error(), 1024))
		return 1, true
	}
	return 0, true
}

func readSetup(args []string) (Setup, error) {
	var s Setup
	if len(args) != 1 {
		return s, errors.New("this word is for children of the server, which tells them what to do")
	}
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return s, fmt.Errorf("read the setup: %w", err)
	}
	return s, nil
}

// code is what a setup names, read before the files are out of reach.
type code struct {
	module []byte
	opts   wasm.Options
}

// read reads the module and the script.
func read(s Setup) (code, error) {
	c := code{opts: wasm.Options{
		Limits: wasm.Limits{Memory: s.Memory}, Name: s.Name, Instances: s.Calls, Cache: s.Cache, Shared: s.Shared,
	}}
	var err error
	if s.Script == "" {
		if c.module, err = os.ReadFile(s.Module); err != nil {
			return c, fmt.Errorf("read the module: %w", err)
		}
		return c, nil
	}
	source, err := os.ReadFile(s.Script)
	if err != nil {
		return c, fmt.Errorf("read the script: %w", err)
	}
	c.module = script.Module()
	c.opts.Engine = script.Engine(source, s.Script)
	return c, nil
}

// compile compiles the module into the cache.
func compile(s Setup) error {
	if err := confine.CloseInherited(); err != nil {
		return err
	}
	c, err := read(s)
	if err != nil {
		return err
	}
	report, err := confine.Apply(confine.Policy{Write: []string{s.Cache}, Memory: memoryOfCompiler, Parent: s.Parent})
	if err != nil {
		return fmt.Errorf("confine the compiler: %w", err)
	}
	if missing := report.Missing(); len(missing) > 0 && !s.AllowDegraded {
		return fmt.Errorf("the sandbox of the compiler is incomplete: %v", missing)
	}
	return wasm.Compile(context.Background(), c.module, c.opts)
}

// run serves the plugin until the server ends it or is gone.
func run(s Setup) error {
	if err := confine.CloseInherited(BrokerFD, LifeFD); err != nil {
		return err
	}
	go exitWith(os.NewFile(LifeFD, "life"))
	conn, err := broker.Inherit(os.NewFile(BrokerFD, "broker"))
	if err != nil {
		return fmt.Errorf("take over the broker's socket: %w", err)
	}
	client := broker.NewClient(conn)
	go func() {
		// Without the broker there is no network any more, which every call is told.
		_ = client.Run()
	}()
	roots, pages := rootsOf(s), programPages()
	c, err := read(s)
	if err != nil {
		return err
	}
	process.Serve(process.ServeOptions{Start: func() (process.Service, error) {
		service, err := start(s, c, client, roots)
		if err == nil {
			trim(pages)
		}
		return service, err
	}})
	return nil
}

// exitWith ends this process when the server is gone, which closes the other end of the pipe.
func exitWith(life io.Reader) {
	// Nothing is ever written to it, so a read returns only at the end.
	_, _ = io.Copy(io.Discard, life)
	os.Exit(1)
}

// rootsOf reads the system's certificates while files can still be read.
func rootsOf(s Setup) func() (*x509.CertPool, error) {
	if !s.TLS {
		return func() (*x509.CertPool, error) { return x509.NewCertPool(), nil }
	}
	pool, err := x509.SystemCertPool()
	return func() (*x509.CertPool, error) { return pool, err }
}

// start puts up the second wall, says so, and loads the module behind it.
func start(s Setup, c code, client *broker.Client, roots func() (*x509.CertPool, error)) (process.Service, error) {
	report, err := confine.Apply(confine.Policy{
		Read: []string{s.Cache}, Memory: uint64(s.Memory)*uint64(s.Calls) + memoryOfRunner, Parent: s.Parent, Keep: []int{BrokerFD, LifeFD},
		Env: []string{"TOCSIN_PLUGIN", "PLUGIN_*", "SSL_CERT_FILE", "SSL_CERT_DIR"},
	})
	hello := Hello{Sandbox: report}
	fail := func(err error) error {
		hello.Failed = sdk.CleanText(err.Error(), 1024)
		return errors.Join(err, client.Tell(hello))
	}
	if err != nil {
		return nil, fail(fmt.Errorf("confine the runner: %w", err))
	}
	if err := client.Tell(hello); err != nil {
		return nil, fmt.Errorf("tell the server of the sandbox: %w", err)
	}
	if missing := report.Missing(); len(missing) > 0 && !s.AllowDegraded {
		return nil, fail(fmt.Errorf("the sandbox is incomplete: %v", missing))
	}
	module, err := wasm.New(context.Background(), c.module, c.opts)
	if err != nil {
		return nil, fail(err)
	}
	hello.Ready = true
	if err := client.Tell(hello); err != nil {
		return nil, fmt.Errorf("tell the server that the module is loaded: %w", err)
	}
	return &service{module: module, client: client, roots: roots}, nil
}
