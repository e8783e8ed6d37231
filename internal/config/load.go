package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Sources is where settings come from.
type Sources struct {
	File    string            // path of the file; empty: TOCSIN_CONFIG in the environment, else none
	Environ []string          // as os.Environ gives it
	Flags   map[string]string // by Setting.Flag, only those that were given
	Kinds   []string          // of checks, by name, that are built in; nil: limits are taken for any name
}

// FileEnv names the settings file when no flag does.
const FileEnv = EnvPrefix + "CONFIG"

// maxFile is the largest settings file that is read, in bytes.
const maxFile = 64 << 10

// Load reads the settings. Its error is Faults with every fault of every source.
func Load(from Sources) (Settings, error) {
	l := newLoader(from.Kinds)
	path := from.File
	for _, pair := range from.Environ {
		if value, ok := strings.CutPrefix(pair, FileEnv+"="); ok && path == "" {
			path = value
		}
	}
	if path != "" {
		if data, err := readFile(path); err != nil {
			l.faults = append(l.faults, Fault{Where: path, Message: "the settings cannot be read: " + err.Error()})
		} else {
			l.file(path, data)
		}
	}
	l.environment(from.Environ)
	l.flags(from.Flags)
	l.defaults()
	if err := l.validate(func(string) bool { return true }); err != nil {
		return Settings{}, err
	}
	for _, again := range l.repeats {
		if err := l.repeated(again); err != nil {
			return Settings{}, err
		}
	}
	return l.settings, l.faults.Err()
}

// readFile reads a settings file. Its error leaves out the path.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("the file is larger than %d KiB", maxFile>>10)
	}
	return data, nil
}

func withoutPath(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

type loader struct {
	table    []Setting
	settings Settings
	kinds    []string         // known kinds; nil: any
	origin   map[string]Fault // by key: where its value came from
	unread   map[string]bool  // by key: the value that counts could not be parsed, and has its fault already
	repeats  []repeat
	faults   Faults
}

// repeat is a setting that its file has once more.
type repeat struct {
	setting *Setting
	words   []string
	at      Fault
}

func newLoader(kinds []string) *loader {
	return &loader{table: Table(), kinds: kinds, origin: map[string]Fault{}, unread: map[string]bool{}}
}

// pluginName is what a plugin may be called, see sdk.Manifest.
var pluginName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// validate adds the faults that only show when every setting is known, of the keys that are wanted.
func (l *loader) validate(wanted func(key string) bool) error {
	var found Faults
	if err := l.settings.Validate(); err != nil && !errors.As(err, &found) {
		return err
	}
	for _, kind := range slices.Sorted(maps.Keys(l.settings.KindLimits)) {
		if l.kinds == nil || slices.Contains(l.kinds, kind) || pluginName.MatchString(kind) {
			continue // a plugin of that name may be installed later; the server warns at its start
		}
		remedy := meant(kind, l.kinds)
		if remedy == "" {
			remedy = "; known are " + strings.Join(l.kinds, ", ")
		}
		found = append(found, Fault{Key: limitsKey, Message: fmt.Sprintf("names the kind %q, which is unknown%s", kind, remedy)})
	}
	for _, f := range found {
		if l.unread[f.Key] || !wanted(f.Key) {
			continue
		}
		at := l.origin[f.Key]
		at.Key, at.Message = f.Key, f.Message
		l.faults = append(l.faults, at)
	}
	return nil
}

// repeated adds the faults that a setting's further value would have in place of the one that counts.
func (l *loader) repeated(again repeat) error {
	other := newLoader(l.kinds)
	other.settings = l.settings
	other.set(again.setting, again.words, again.at)
	err := other.validate(func(key string) bool { return key == again.setting.Key })
	l.faults = append(l.faults, other.faults...)
	return err
}

func (l *loader) find(match func(*Setting) bool) *Setting {
	for i := range l.table {
		if match(&l.table[i]) {
			return &l.table[i]
		}
	}
	return nil
}

// set stores a value and where it came from, or the fault it has. A later source takes back an earlier one's fault no more
// than its value: what is written wrong anywhere is told.
func (l *loader) set(s *Setting, words []string, at Fault) {
	at.Key = s.Key
	l.origin[s.Key] = at
	err := s.set(&l.settings, words)
	l.unread[s.Key] = err != nil
	if err != nil {
		at.Message = err.Error()
		l.faults = append(l.faults, at)
	}
}

func (l *loader) defaults() {
	for i := range l.table {
		s := &l.table[i]
		if _, given := l.origin[s.Key]; given {
			continue
		}
		text := s.Default
		if demo := s.tag.Get("demo"); demo != "" && l.settings.Demo {
			text = demo
		}
		if text == "" {
			continue
		}
		if err := s.set(&l.settings, s.words(text)); err != nil { // a slip in a tag, which a test of the table finds first
			l.faults = append(l.faults, Fault{Key: s.Key, Message: "its default " + err.Error()})
		}
	}
}

// injected are the variables that Kubernetes sets in every container for a service called tocsin; they are not for us.
var injected = regexp.MustCompile(`^TOCSIN_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func (l *loader) environment(environ []string) {
	names := []string{FileEnv, EnvPrefix + "URL", EnvPrefix + "TOKEN"} // the last two are the command line's own
	known := len(names)
	for i := range l.table {
		names = append(names, l.table[i].Env)
	}
	for _, pair := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, EnvPrefix) || slices.Contains(names[:known], name) || injected.MatchString(name) {
			continue
		}
		s := l.find(func(s *Setting) bool { return s.Env == name })
		if s == nil {
			l.faults = append(l.faults, Fault{Where: name, Message: "no setting has this name" + meant(name, names)})
			continue
		}
		l.set(s, s.words(value), Fault{Where: name})
	}
}

func (l *loader) flags(flags map[string]string) {
	for i := range l.table {
		s := &l.table[i]
		if value, given := flags[s.Flag]; given && s.Flag != "" {
			l.set(s, s.words(value), Fault{Where: "--" + s.Flag})
		}
	}
}
