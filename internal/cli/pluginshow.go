package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// writeAsks writes a list of permissions in plain words, for the person who grants them, below a lead.
func writeAsks(b *strings.Builder, lead string, asks []askJSON) {
	if len(asks) == 0 {
		fmt.Fprintf(b, "%s reach nothing.\n", lead)
		return
	}
	b.WriteString(lead + "\n")
	for _, ask := range asks {
		fmt.Fprintf(b, "  • %s\n", shown(ask.Words))
		writeAsk(b, "    ", ask)
	}
}

// marked returns what a build that waits asks for, with what is granted already marked as such.
func marked(asks []askJSON) []askJSON {
	list := slices.Clone(asks)
	for i := range list {
		if list[i].Granted {
			list[i].Words += " (granted already)"
		}
	}
	return list
}

// writeAsk writes how a permission is written, and why its author wants it.
func writeAsk(b *strings.Builder, indent string, ask askJSON) {
	fmt.Fprintf(b, "%s%s\n", indent, shown(ask.Allow))
	if ask.Reason != "" {
		fmt.Fprintf(b, "%sits author says: %s\n", indent, shown(ask.Reason))
	}
}

// mark is a sign with a word: neither says more than the other.
func (a *app) mark(good bool, yes, no string) string {
	sign, word, colour := "✓", yes, "32"
	if !good {
		sign, word, colour = "✗", no, "31"
	}
	text := fmt.Sprintf("%s %-*s", sign, max(len(yes), len(no)), word)
	if a.colour() {
		text = "\x1b[" + colour + "m" + text + "\x1b[0m"
	}
	return text
}

// limits says what is in force and who set it.
func (p *pluginJSON) limits() string {
	parts := []string{"memory " + shown(p.Limits.Memory), "timeout " + shown(p.Limits.Timeout), fmt.Sprintf("concurrency %d", p.Limits.Concurrency)}
	for i, name := range []string{"memory", "timeout", "concurrency"} {
		if slices.Contains(p.Limits.Set, name) {
			parts[i] += " (set by an operator)"
		}
	}
	return strings.Join(parts, ", ")
}

// inspected writes everything about a plugin.
func (a *app) inspected(p *pluginJSON) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n\n", shown(p.Name), shown(p.Version), shown(p.Summary))
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-10s %s\n", name, shown(value))
		}
	}
	condition := p.Condition
	if p.Why != "" {
		condition += ": " + p.Why
	}
	row("condition", condition)
	row("provides", strings.Join(p.Provides, ", "))
	target := p.Target.Doc
	if p.Target.Example != "" {
		target = strings.TrimSuffix(p.Target.Example+" ("+target+")", " ()")
	}
	row("target", target)
	row("license", p.License)
	row("runtime", p.Runtime)
	row("digest", p.Digest)
	row("installed", moment(p.InstalledAt))
	row("changed", moment(p.UpdatedAt))
	row("limits", p.limits())
	a.writeGrant(&b, p)
	a.writeWall(&b, p)
	writeUsage(&b, p)
	return a.printf("%s", &b)
}

func moment(at time.Time) string {
	return at.UTC().Format(time.RFC3339) + " (" + relative(at, time.Now()) + ")"
}

// writeGrant writes what a plugin asks for, what of that it got, and what a build that waits asks for.
func (a *app) writeGrant(b *strings.Builder, p *pluginJSON) {
	b.WriteString("\nAsks to\n")
	if len(p.Asks) == 0 {
		b.WriteString("  reach nothing\n")
	}
	for _, ask := range p.Asks {
		fmt.Fprintf(b, "  %s  %s\n", a.mark(ask.Granted, "granted", "not granted"), shown(ask.Words))
		writeAsk(b, strings.Repeat(" ", 17), ask)
	}
	for _, part := range p.may() {
		if !slices.ContainsFunc(p.Asks, func(ask askJSON) bool { return ask.Allow == part.Allow }) {
			fmt.Fprintf(b, "  %s  %s\n", a.mark(true, "granted", "not granted"), "a part: "+shown(part.Allow))
		}
	}
	switch g := p.Grant; {
	case g == nil:
		b.WriteString("  nobody has decided yet\n")
	case g.AllowPrivate:
		fmt.Fprintf(b, "  decided by %s at %s; addresses that it names itself may be private\n", shown(g.By), moment(g.At))
	default:
		fmt.Fprintf(b, "  decided by %s at %s; addresses that it names itself may not be private\n", shown(g.By), moment(g.At))
	}
	if p.Pending != nil {
		b.WriteByte('\n')
		writeAsks(b, "Version "+shown(p.Pending.Version)+" waits for its grant and asks to", marked(p.Pending.Asks))
	}
	if p.waits() {
		fmt.Fprintf(b, "  grant it with: tocsin plugin grant %s\n", shown(p.Name))
	}
}

// writeWall writes the layers of the sandbox.
func (a *app) writeWall(b *strings.Builder, p *pluginJSON) {
	b.WriteString("\nSandbox\n")
	if len(p.Sandbox.Layers) == 0 {
		b.WriteString("  not known before its first start\n")
	}
	width := 0
	for _, l := range p.Sandbox.Layers {
		width = max(width, len([]rune(shown(l.Name))))
	}
	for _, l := range p.Sandbox.Layers {
		line := fmt.Sprintf("  %s  %-*s  %s", a.mark(l.Holds, "holds", "does not hold"), width, shown(l.Name), shown(l.Detail))
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if p.Sandbox.Degraded {
		b.WriteString("  it runs although a required layer is missing: plugins.allow_degraded_sandbox is set\n")
	}
}

// writeUsage writes what a plugin did and used.
func writeUsage(b *strings.Builder, p *pluginJSON) {
	u := &p.Usage
	average := "none ended yet"
	if u.Calls > 0 {
		average = milliseconds(time.Duration(u.LatencyUSTotal)*time.Microsecond/time.Duration(u.Calls)) + " on average"
	}
	b.WriteString("\nSince the server started\n")
	for _, row := range [][2]string{
		{"calls", fmt.Sprintf("%d, %s; %d failed, %d under way", u.Calls, average, u.Failures, u.Running)},
		{"processes", fmt.Sprintf("%d of %d that were started; %d had to be killed", u.Runners, u.Starts, u.Kills)},
		{"processor", (time.Duration(u.CPUMS) * time.Millisecond).String()},
		{"memory", bytesText(u.MemoryBytes)},
		{"network", fmt.Sprintf("%s read, %s written, %d connections refused", bytesText(u.BytesRead), bytesText(u.BytesWritten), u.Denied)},
	} {
		fmt.Fprintf(b, "  %-10s %s\n", row[0], row[1])
	}
}

// bytesText writes a number of bytes in the largest unit that leaves one before the point.
func bytesText(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
