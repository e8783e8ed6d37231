package config

import (
	"errors"
	"fmt"
	"io"
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
}

// FileEnv names the settings file when no flag does.
const FileEnv = EnvPrefix + "CONFIG"

// maxFile is the largest settings file that is read, in bytes.
const maxFile = 64 << 10

// Load reads the settings. Its error is Faults with every fault of every source, or what kept the file from being read.
func Load(from Sources) (Settings, error) {
	l := loader{table: Table(), origin: map[string]Fault{}}
	path := from.File
	for _, pair := range from.Environ {
		if value, ok := strings.CutPrefix(pair, FileEnv+"="); ok && path == "" {
			path = value
		}
	}
	if path != "" {
		data, err := readFile(path)
		if err != nil {
			return Settings{}, err
		}
		l.file(path, data)
	}
	l.environment(from.Environ)
	l.flags(from.Flags)
	l.defaults()
	if err := l.settings.Validate(); err != nil {
		var found Faults
		if !errors.As(err, &found) {
			return Settings{}, err
		}
		for _, f := range found {
			// A value that could not be parsed has its fault already.
			if l.faulty(f.Key) {
				continue
			}
			at := l.origin[f.Key]
			at.Key, at.Message = f.Key, f.Message
			l.faults = append(l.faults, at)
		}
	}
	return l.settings, l.faults.Err()
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read the settings: %s is larger than %d KiB", path, maxFile>>10)
	}
	return data, nil
}

type loader struct {
	table    []Setting
	settings Settings
	origin   map[string]Fault // by key: where its value came from
	faults   Faults
}

func (l *loader) faulty(key string) bool {
	return slices.ContainsFunc(l.faults, func(f Fault) bool { return f.Key == key })
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
	if err := s.set(&l.settings, words); err != nil {
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
