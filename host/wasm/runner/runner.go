package runner

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

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
func Child(args []string) (code int, ok bool) { return ChildAs(args, Variant{Prepare: prepare}) }

// Variant is what a program of tests does otherwise than the real runner does. Everything else is the same code.
type Variant struct {
	Prepare Prepare  // of the runner
	Without []string // layers of the sandbox that are left out
}

// Prepare reads what the setup names while files can still be read.
type Prepare func(s Setup) (Load, error)

// Load loads the code behind the wall and makes the service that runs it. It calls seal when the code is loaded and none of it
// has run; an error of that ends it.
type Load func(client *broker.Client, seal func() error) (process.Service, error)

// ChildAs is Child for a program of tests.
func ChildAs(args []string, v Variant) (code int, ok bool) {
	if len(args) == 0 || args[0] != RunWord && args[0] != CompileWord {
		return 0, false
	}
	setup, err := readSetup(args[1:])
	if err == nil {
		// Where the system refuses it, a child competes with the server, and is killed at its deadline all the same.
		_ = standBack()
		switch args[0] {
		case RunWord:
			err = v.run(setup)
		case CompileWord:
			err = v.compile(setup)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, sdk.CleanText(err.Error(), 1024))
		switch {
		case errors.As(err, new(*wallError)):
			return WallExit, true
		case errors.As(err, new(*fs.PathError)):
			return FileExit, true
		}
		return 1, true
	}
	return 0, true
}

// wallError says which required layers of the sandbox are missing.
type wallError struct{ missing []string }

func (e *wallError) Error() string { return strings.Join(e.missing, ", ") }

// check refuses a sandbox with holes, unless the server's operator wants it so. Until it is sealed a process that must read its
// code may have files.
func (s Setup) check(report confine.Report, loaded bool) error {
	missing := report.Missing()
	if !loaded {
		missing = slices.DeleteFunc(missing, func(layer string) bool { return layer == confine.LayerNoFiles })
	}
	if len(missing) == 0 || s.AllowDegraded {
		return nil
	}
	return &wallError{missing}
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
		Limits: wasm.Limits{Memory: s.Memory}, Name: s.Name, Instances: s.Calls, Cache: s.Cache,
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

// compile compiles the module into the cache. It runs none of it, and keeps files to the end: it has to write some.
func (v Variant) compile(s Setup) error {
	if err := confine.CloseInherited(); err != nil {
		return err
	}
	c, err := read(s)
	if err != nil {
		return err
	}
	report, err := confine.Apply(confine.Policy{
		Write: []string{s.Cache}, Memory: memoryOfCompiler, Parent: s.Parent, Without: v.Without,
	})
	if err != nil {
		return fmt.Errorf("confine the compiler: %w", err)
	}
	if err := s.check(report, false); err != nil {
		return err
	}
	return wasm.Compile(context.Background(), c.module, c.opts)
}

// run serves the plugin until the server ends it or is gone.
func (v Variant) run(s Setup) error {
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
	pages := programPages()
	load, err := v.Prepare(s)
	if err != nil {
		return err
	}
	w := wall{setup: s, client: client, policy: confine.Policy{
		Read: []string{s.Cache}, Memory: uint64(s.Memory)*uint64(s.Calls) + memoryOfRunner, Parent: s.Parent, Keep: []int{BrokerFD, LifeFD},
		Env: []string{"TOCSIN_PLUGIN", "PLUGIN_*", "SSL_CERT_FILE", "SSL_CERT_DIR"}, Without: v.Without,
	}}
	process.Serve(process.ServeOptions{Start: func() (process.Service, error) {
		service, err := w.start(load)
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

// wall is the second wall around this process.
type wall struct {
	setup  Setup
	client *broker.Client
	policy confine.Policy
	report confine.Report
	sealed bool
}

// start puts up the wall, loads the code behind it, and tells the server how both went.
func (w *wall) start(load Load) (process.Service, error) {
	service, err := w.behind(load)
	if err == nil && !w.sealed {
		err = errors.New("the code was loaded without a seal")
	}
	if err != nil {
		return nil, errors.Join(err, w.client.Tell(Hello{Sandbox: w.report, Failed: sdk.CleanText(err.Error(), 1024)}))
	}
	if err := w.client.Tell(Hello{Ready: true}); err != nil {
		return nil, fmt.Errorf("tell the server that the module is loaded: %w", err)
	}
	return service, nil
}

func (w *wall) behind(load Load) (process.Service, error) {
	var err error
	if w.report, err = confine.Apply(w.policy); err != nil {
		return nil, fmt.Errorf("confine the runner: %w", err)
	}
	if err := w.setup.check(w.report, false); err != nil {
		return nil, err
	}
	return load(w.client, w.seal)
}

// seal takes what only loading needed, and tells the server of the wall while nothing behind it has run that could lie.
func (w *wall) seal() error {
	if w.sealed {
		return errors.New("it is sealed already")
	}
	w.sealed = true
	w.report = confine.Seal(w.policy, w.report)
	if err := w.setup.check(w.report, true); err != nil {
		return err
	}
	if err := w.client.Tell(Hello{Sandbox: w.report}); err != nil {
		return fmt.Errorf("tell the server of the sandbox: %w", err)
	}
	return nil
}

// prepare reads the module and the certificates.
func prepare(s Setup) (Load, error) {
	c, err := read(s)
	if err != nil {
		return nil, err
	}
	roots := rootsOf(s)
	return func(client *broker.Client, seal func() error) (process.Service, error) {
		c.opts.Loaded = seal
		module, err := wasm.New(context.Background(), c.module, c.opts)
		if err != nil {
			return nil, err
		}
		return &service{module: module, client: client, roots: roots}, nil
	}, nil
}
