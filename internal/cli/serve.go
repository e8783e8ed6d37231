package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) serve() *cobra.Command {
	settings := a.Server.Settings()
	given := make([]*textFlag, len(settings))
	file := ""
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run the server",
		Args:  exactly(),
		Long: "Runs the server until it is told to stop (Ctrl-C, SIGTERM). Needs no settings.\n\n" +
			"Settings come from the file, the environment and flags, each overriding the one before.",
		Example: "  tocsin serve --demo\n  tocsin serve --data /var/lib/tocsin --listen :8080 --public-url https://status.example.com",
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := map[string]string{}
			for i, s := range settings {
				if s.Flag != "" && len(given[i].texts) > 0 {
					flags[s.Flag] = strings.Join(given[i].texts, ",")
				}
			}
			return a.Server.Serve(cmd.Context(), ServeRequest{
				ConfigFile: file, Flags: flags, Environ: a.Environ, Stdout: a.Stdout, Stderr: a.Stderr, Version: a.Version,
			})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "YAML file with settings [TOCSIN_CONFIG]")
	secrets := ""
	for i, s := range settings {
		if s.Flag == "" {
			secrets += fmt.Sprintf("\n  %-20s %s", s.Env, s.Doc)
			continue
		}
		several := s.Type == "addresses" || strings.HasSuffix(s.Type, "…")
		given[i] = &textFlag{kind: s.Type, several: several}
		text := s.Doc
		if s.Default != "" {
			text += fmt.Sprintf(" (default %s)", s.Default)
		}
		flag := cmd.Flags().VarPF(given[i], s.Flag, "", text+" ["+s.Env+"]")
		if s.Bool {
			flag.NoOptDefVal = "true"
		}
	}
	if secrets != "" {
		cmd.Long += "\n\nSecrets come from the environment only:" + secrets
	}
	return cmd
}
