// Package cli is the command line. It talks to a server through the HTTP API as anybody does, makes single checks on its
// own, and starts the server that was handed in.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Exit codes of every command but check, whose codes are 0 up, 1 degraded, 2 down, 3 unknown, as monitoring plugins have it.
const (
	ExitOK    = 0
	ExitError = 1
	ExitUsage = 2
	ExitAuth  = 4 // the server did not accept the token, or it may not do this
)

// exitUnknown is the code of a check that could not be made, wrong usage included: 2 would say that the target is down.
const exitUnknown = 3

// CodedError is an error with the exit code that it means.
type CodedError struct {
	Code int
	Err  error // nil prints nothing
}

// Error returns the text of Err.
func (e *CodedError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns Err.
func (e *CodedError) Unwrap() error { return e.Err }

func usage(format string, args ...any) error {
	return &CodedError{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Setting is one setting of the server, which `tocsin serve` takes as a flag.
type Setting struct {
	Flag, Type, Default, Env, Doc string
	Bool                          bool // may stand without a value
}

// ServeRequest is what `tocsin serve` was asked.
type ServeRequest struct {
	ConfigFile     string            // empty: none was named
	Flags          map[string]string // by Setting.Flag, only those that were given
	Environ        []string
	Stdout, Stderr io.Writer
	Version        string
}

// Server is the server that `tocsin serve` runs.
type Server interface {
	Settings() []Setting
	// Serve runs until the context ends. Wrong settings are a CodedError with ExitUsage.
	Serve(ctx context.Context, r ServeRequest) error
}

// Options is what Main needs of the process.
type Options struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string
	Version        string
	Server         Server
}

// Main runs one command and returns its exit code.
func Main(ctx context.Context, o Options) int {
	a := &app{Options: o}
	root := a.root()
	root.SetArgs(o.Args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	code := ExitError
	var exit *CodedError
	if errors.As(err, &exit) {
		code = exit.Code
		if exit.Err == nil {
			return code
		}
	}
	if isCheck(cmd) && code < exitUnknown && (exit == nil || exit.Err != nil) {
		a.json = a.json || slices.Contains(o.Args, "--json") // the fault may stand before it
		if err := a.printUnknown(strings.ReplaceAll(err.Error(), "\n", "; ")); err != nil {
			fmt.Fprintln(o.Stderr, "tocsin: "+err.Error())
		}
		return exitUnknown
	}
	fmt.Fprintln(o.Stderr, "tocsin: "+err.Error())
	if code == ExitUsage && cmd != nil {
		fmt.Fprintf(o.Stderr, "run '%s --help' for what it takes\n", cmd.CommandPath())
	}
	return code
}

// app is one run of the command line.
type app struct {
	Options
	json bool
}

func (a *app) root() *cobra.Command {
	root := a.group("tocsin", "watches hosts and services and raises the alarm")
	root.Long = "Tocsin watches hosts and services and raises the alarm.\n\n" +
		"`tocsin serve` runs the server. `tocsin check` makes one check without one. All other commands talk to the server at\n" +
		"TOCSIN_URL (http://127.0.0.1:8080 when not set) with the token in TOCSIN_TOKEN.\n\n" +
		"Exit codes: 0 done, 1 error, 2 wrong usage, 4 not authorised; of check: 0 up, 1 degraded, 2 down, 3 unknown."
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &CodedError{Code: ExitUsage, Err: err} })
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write JSON to standard output and nothing else there")
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(a.serve(), a.check(), a.monitor(), a.channel(), a.plugin(), a.version())
	return root
}

// group is a command that only holds others.
func (a *app) group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			names := cmd.SuggestionsFor(args[0])
			if len(names) == 0 {
				for _, sub := range cmd.Commands() {
					if sub.IsAvailableCommand() {
						names = append(names, sub.Name())
					}
				}
			}
			return usage("unknown command %q; there is %s", args[0], strings.Join(names, ", "))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}

// exactly wants one argument for each name.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage("%s is missing", names[len(args)])
		case len(args) > len(names):
			return usage("%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(map[string]string{"version": a.Version})
			}
			return a.printf("tocsin %s\n", a.Version)
		},
	}
}

// env returns a variable of the process, or "".
func (a *app) env(name string) string {
	value := ""
	for _, pair := range a.Environ { // of several the last counts, as in os/exec
		if v, ok := strings.CutPrefix(pair, name+"="); ok {
			value = v
		}
	}
	return value
}

// terminal reports whether a stream is one on which a person reads or writes.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colour reports whether standard output takes colours; see https://no-color.org.
func (a *app) colour() bool {
	return terminal(a.Stdout) && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb"
}

// isCheck reports whether the command is `check` or one of the kinds below it.
func isCheck(cmd *cobra.Command) bool {
	return cmd != nil && slices.Contains(strings.Fields(cmd.CommandPath()), "check") && strings.HasPrefix(cmd.CommandPath(), "tocsin check")
}
