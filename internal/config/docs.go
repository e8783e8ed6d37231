package config

import (
	"fmt"
	"strings"
)

// Markdown is the table of settings for docs/operations.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| in the file | in the environment | as a flag | is | default | what it sets |\n|---|---|---|---|---|---|\n")
	for _, s := range Table() {
		file, flag := "`"+s.Key+"`", "`--"+s.Flag+"`"
		if s.Flag == "" {
			file, flag = "—", "—"
		}
		value := "—"
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		if demo := s.tag.Get("demo"); demo != "" {
			value += ", in the demo `" + demo + "`"
		}
		doc := s.Doc
		if low, high := s.tag.Get("min"), s.tag.Get("max"); low != "" {
			doc += fmt.Sprintf("; from %s to %s", low, high)
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s |\n", file, s.Env, flag, strings.ReplaceAll(s.Type, "|", " or "), value, doc)
	}
	return b.String()
}
