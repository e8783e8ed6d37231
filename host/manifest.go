package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tocsinhq/tocsin/engine/schema"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/sdk"
)

// Bounds of a manifest's fields.
const (
	maxSummary     = 200 // bytes
	maxText        = 500 // bytes of any other text
	maxPermissions = 64
	maxPlatforms   = 32
)

var (
	pluginName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	// https://semver.org, "Is there a suggested regular expression".
	semanticVersion = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
		`(-((0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(\+([0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*))?$`)
	platformName = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+$`)
	sha256Text   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Manifest is what a plugin's manifest says, with its permissions parsed.
type Manifest struct {
	sdk.Manifest
	Asks []reach.Permission // in the order of Permissions
}

// ParseManifest reads a tocsin-plugin.yaml. The path is for errors only. The error is Faults: everything that is wrong, each
// with file, line, column and the line itself. Limits that are not written are the defaults.
func ParseManifest(path string, data []byte) (Manifest, error) {
	var m Manifest
	d := readYAML(path, data, &m.Manifest)
	if len(d.lines) == 0 || d.wrong[""] {
		return Manifest{}, d.faults.Err()
	}
	c := checker{d, m.Manifest}
	c.texts()
	c.files()
	c.limits()
	c.config()
	m.Asks = c.permissions()
	if err := d.faults.Err(); err != nil {
		return Manifest{}, err
	}
	m.Limits = m.Limits.WithDefaults()
	return m, nil
}

// checker finds what is wrong with a manifest beyond its form.
type checker struct {
	*document
	m sdk.Manifest
}

// has reports whether a field was written.
func (c checker) has(field string) bool { return c.at[field] != nil }

func (c checker) texts() {
	m := c.m
	if m.API != sdk.APIVersion {
		c.about("api", "must be %d, the version of the contract that this server speaks", sdk.APIVersion)
	}
	if !pluginName.MatchString(m.Name) {
		c.about("name", "must be at most 63 lower-case letters, digits and dashes, a letter first and no dash last")
	}
	if !semanticVersion.MatchString(m.Version) || len(m.Version) > 128 {
		c.about("version", "must be a semantic version such as 1.2.0")
	}
	if m.Summary == "" {
		c.about("summary", "must say what the plugin does")
	}
	if len(m.Summary) > maxSummary {
		c.about("summary", "must be at most %d bytes", maxSummary)
	}
	for field, text := range map[string]string{"license": m.License, "target.example": m.Target.Example, "target.doc": m.Target.Doc} {
		if len(text) > maxText {
			c.about(field, "must be at most %d bytes", maxText)
		}
	}
	if c.has("provides") && len(m.Provides) == 0 {
		c.about("provides", "must have check, notify or both")
	}
	for i, call := range m.Provides {
		field := fmt.Sprintf("provides[%d]", i)
		if call != "check" && call != "notify" {
			c.about(field, "must be check or notify, is %s", quote(call))
		}
		if slices.Contains(m.Provides[:i], call) {
			c.about(field, "is listed twice")
		}
	}
	if m.Runtime != "wasm" && m.Runtime != "process" {
		c.about("runtime", "must be wasm or process, is %s", quote(m.Runtime))
	}
	if c.has("isolation") && m.Isolation != "pristine" && m.Isolation != "shared" {
		c.about("isolation", "must be pristine or shared, is %s", quote(m.Isolation))
	}
	if m.Runtime == "process" && c.has("isolation") {
		c.about("isolation", "is for runtime wasm")
	}
	if m.Runtime == "wasm" && c.has("mtls") {
		c.about("mtls", "is for runtime process")
	}
}

// files checks the combinations of runtime, entry, script and sha256.
func (c checker) files() {
	m := c.m
	switch {
	case m.Entry.IsZero() && m.Script == "" && !c.wrong["entry"] && !c.wrong["script"]:
		if m.Runtime == "process" {
			c.about("entry", "is missing: the programs, by os/arch")
		} else {
			c.about("entry", "is missing; write entry for a module or script for a JavaScript file")
		}
	case c.has("entry") && c.has("script"):
		c.about("script", "stands in the place of entry; remove one of them")
	case c.has("script") && m.Runtime == "process":
		c.about("script", "is for runtime wasm")
	case c.has("script"):
		c.file("script", m.Script, ".js", ".mjs")
	case m.Runtime == "wasm" && m.Entry.Each != nil:
		c.about("entry", "must be one file: a module runs on every platform")
	case m.Runtime == "wasm":
		c.file("entry", m.Entry.One, ".wasm")
	case m.Runtime == "process" && m.Entry.One != "":
		c.about("entry", "must be a map of os/arch to file, such as linux/amd64: bin/redis-linux-amd64")
	case m.Runtime == "process":
		c.platforms()
	}
	c.digests()
}

func (c checker) platforms() {
	if len(c.m.Entry.Each) > maxPlatforms {
		c.about("entry", "has more than %d platforms", maxPlatforms)
	}
	for _, platform := range slices.Sorted(maps.Keys(c.m.Entry.Each)) {
		field := join("entry", platform)
		if !platformName.MatchString(platform) {
			c.about(field, "must be named os/arch, such as linux/amd64")
		}
		c.file(field, c.m.Entry.Each[platform])
	}
}

func (c checker) file(field, name string, endings ...string) {
	if err := fileName(name); err != nil {
		c.about(field, "%s", err)
		return
	}
	if name == sdk.ManifestFile {
		c.about(field, "is the manifest itself")
	}
	if len(endings) > 0 && !slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(name, e) }) {
		c.about(field, "must end in %s", strings.Join(endings, " or "))
	}
}

// digests holds sha256 to the form of what it is the digest of.
func (c checker) digests() {
	sums := c.m.SHA256
	if sums.One != "" && !sha256Text.MatchString(sums.One) {
		c.about("sha256", "must be 64 lower-case hexadecimal digits")
	}
	for _, platform := range slices.Sorted(maps.Keys(sums.Each)) {
		if !sha256Text.MatchString(sums.Each[platform]) {
			c.about(join("sha256", platform), "must be 64 lower-case hexadecimal digits")
		}
	}
	if !c.has("sha256") || c.wrong["sha256"] || c.wrong["entry"] {
		return
	}
	same := slices.Equal(slices.Sorted(maps.Keys(sums.Each)), slices.Sorted(maps.Keys(c.m.Entry.Each)))
	switch {
	case c.m.Entry.Each != nil && (sums.Each == nil || !same):
		c.about("sha256", "must be a map with the same platforms as entry")
	case c.m.Entry.Each == nil && sums.Each != nil:
		c.about("sha256", "must be one digest, since there is one file")
	}
}

func (c checker) limits() {
	l := c.m.Limits
	if c.has("limits.memory") && (l.Memory < sdk.MinMemory || l.Memory > sdk.MaxMemory) {
		c.about("limits.memory", "must be between %s and %s, is %s", sdk.MinMemory, sdk.MaxMemory, l.Memory)
	}
	if c.has("limits.timeout") && (l.Timeout < sdk.MinTimeout || l.Timeout > sdk.MaxTimeout) {
		c.about("limits.timeout", "must be between %s and %s, is %s", sdk.MinTimeout, sdk.MaxTimeout, l.Timeout)
	}
	if c.has("limits.concurrency") && (l.Concurrency < sdk.MinConcurrency || l.Concurrency > sdk.MaxConcurrency) {
		c.about("limits.concurrency", "must be between %d and %d, is %d", sdk.MinConcurrency, sdk.MaxConcurrency, l.Concurrency)
	}
}

func (c checker) config() {
	if len(c.m.Config) == 0 {
		return
	}
	_, err := schema.Compile(c.m.Config)
	var invalid *schema.Error
	if errors.As(err, &invalid) && len(invalid.Path) > 0 {
		c.about(strings.Join(append([]string{"config"}, invalid.Path...), "."), "%s", invalid.Why)
		c.wrong["config"] = true
	} else if err != nil {
		c.about("config", "%s", err)
	}
}

func (c checker) permissions() []reach.Permission {
	var asks []reach.Permission
	if len(c.m.Permissions) > maxPermissions {
		c.about("permissions", "are more than %d", maxPermissions)
	}
	for i, entry := range c.m.Permissions {
		field := fmt.Sprintf("permissions[%d]", i)
		if len(entry.Reason) > maxText {
			c.about(field+".reason", "must be at most %d bytes", maxText)
		}
		if !c.has(field + ".allow") {
			continue
		}
		p, err := reach.ParsePermission(entry.Allow)
		if err != nil {
			c.about(field+".allow", "%s", err)
			continue
		}
		if p.Target && len(c.m.Provides) > 0 && !c.m.Provided("check") {
			c.about(field+".allow", "a notification has no target; use {config.FIELD}")
		}
		if p.ConfigField != "" && !c.configHas(p.ConfigField) {
			c.about(field+".allow", "config has no property %s", p.ConfigField)
		}
		asks = append(asks, p)
	}
	return asks
}

// configHas reports whether the schema has a property; a schema that has faults of its own is not asked.
func (c checker) configHas(name string) bool {
	var fields struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if c.wrong["config"] || len(c.m.Config) > 0 && json.Unmarshal(c.m.Config, &fields) != nil {
		return true
	}
	_, ok := fields.Properties[name]
	return ok
}
