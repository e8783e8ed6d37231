package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// printf writes to standard output. A reader that went away is an error like any other.
func (a *app) printf(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.Stdout, format, args...); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// printJSON writes a value as indented JSON.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// table writes rows in columns, the first row being the heading. Control characters do not get through: what a target or a
// server says may hold them.
func (a *app) table(rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i := range row {
			row[i] = sdk.CleanText(row[i], 400)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
			if i == len(row)-1 {
				pad = ""
			}
			if i == 0 && n > 0 && a.colour() {
				cell = paint(cell)
			}
			b.WriteString(cell + pad)
		}
		b.WriteString("\n")
	}
	return a.printf("%s", &b)
}

// paint colours a state; the word stands in any case.
func paint(state string) string {
	code := ""
	switch state {
	case monitor.Up.String(), "ok", string(monitor.PluginReady):
		code = "32"
	case monitor.Degraded.String(), string(monitor.PluginWaiting):
		code = "33"
	case monitor.Down.String(), "failing", string(monitor.PluginBroken):
		code = "31"
	case monitor.Unknown.String():
		code = "35"
	default:
		return state
	}
	return "\x1b[" + code + "m" + state + "\x1b[0m"
}

// relative writes a time as seen from now: "in 12 days", "3 min ago".
func relative(at, now time.Time) string {
	d := at.Sub(now)
	past := d < 0
	if past {
		d = -d
	}
	text := ""
	switch {
	case d < time.Minute:
		text = fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		text = fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		text = fmt.Sprintf("%d h", d/time.Hour)
	default:
		text = fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	if past {
		return text + " ago"
	}
	return "in " + text
}

// progress shows on a terminal, once a second has passed, that something is under way. The function that it returns ends
// it and wipes the line.
func (a *app) progress(what string) func() {
	if !terminal(a.Stderr) || a.env("TERM") == "dumb" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for seconds := 1; ; seconds++ {
			select {
			case <-ctx.Done():
				if seconds > 1 {
					fmt.Fprint(a.Stderr, "\r\x1b[K")
				}
				return
			case <-ticker.C:
				fmt.Fprintf(a.Stderr, "\r%s, %d s \x1b[K", sdk.CleanText(what, 60), seconds)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// confirm asks before something is removed. Without a terminal to ask on, yes must have been given.
func (a *app) confirm(yes bool, format string, args ...any) error {
	if yes {
		return nil
	}
	if !a.asks() {
		return usage("give --yes to remove without being asked")
	}
	yes, err := a.ask(format, args...)
	if err == nil && !yes {
		err = &CodedError{Code: ExitError, Err: errors.New("not confirmed, nothing was removed")}
	}
	return err
}

// asks reports whether there is a terminal to ask on.
func (a *app) asks() bool { return terminal(a.Stdin) && terminal(a.Stderr) }

// ask asks a question on the terminal. Anything but y or yes is no.
func (a *app) ask(format string, args ...any) (bool, error) {
	if _, err := fmt.Fprintf(a.Stderr, format+" [y/N] ", args...); err != nil {
		return false, fmt.Errorf("ask: %w", err)
	}
	answer, err := bufio.NewReader(a.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}
