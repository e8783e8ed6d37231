package app

import (
	"context"
	"errors"

	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/internal/cli"
	"github.com/tocsinhq/tocsin/internal/config"
)

// Server is what `tocsin serve` runs.
type Server struct{}

var _ cli.Server = Server{}

// Settings lists the settings that the server takes.
func (Server) Settings() []cli.Setting {
	var settings []cli.Setting
	for _, s := range config.Table() {
		settings = append(settings, cli.Setting{Flag: s.Flag, Type: s.Type, Default: s.Default, Env: s.Env, Doc: s.Doc, Bool: s.Bool})
	}
	return settings
}

// Serve reads the settings and runs the server until ctx ends. Wrong settings are a cli.CodedError with cli.ExitUsage.
func (Server) Serve(ctx context.Context, r cli.ServeRequest) error {
	var kinds []string
	for _, k := range check.NewRegistry(check.Options{}).Kinds() { // it opens nothing
		kinds = append(kinds, k.Name)
	}
	settings, err := config.Load(config.Sources{File: r.ConfigFile, Environ: r.Environ, Flags: r.Flags, Kinds: kinds})
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		return &cli.CodedError{Code: cli.ExitUsage, Err: &settingsError{faults}}
	case err != nil:
		return err
	}
	return Run(ctx, Options{Settings: settings, Stdout: r.Stdout, Stderr: r.Stderr, Version: r.Version})
}

type settingsError struct{ faults config.Faults }

func (e *settingsError) Error() string { return "the settings are wrong:\n" + e.faults.Error() }
func (e *settingsError) Unwrap() error { return e.faults }
