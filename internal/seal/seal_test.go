package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func open(t *testing.T, dir, env string) *Sealer {
	t.Helper()
	s, err := Open(dir, env)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	s := open(t, t.TempDir(), "")
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		sealed, err := s.Seal(plain)
		if err != nil {
			t.Fatal(err)
		}
		if len(plain) > 8 && bytes.Contains(sealed, plain) {
			t.Fatal("the plain text is in the sealed bytes")
		}
		got, err := s.Open(sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("got %x, %v; want %x", got, err, plain)
		}
	})
}

func TestSameTextSealsDifferently(t *testing.T) {
	s := open(t, t.TempDir(), "")
	a, _ := s.Seal([]byte("same"))
	b, _ := s.Seal([]byte("same"))
	if bytes.Equal(a, b) {
		t.Fatal("two seals of one text are equal")
	}
}

func TestTamper(t *testing.T) {
	s := open(t, t.TempDir(), "")
	sealed, err := s.Seal([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := s.Open(bad); !errors.Is(err, ErrWrongKey) {
			t.Fatalf("byte %d changed: got %v", i, err)
		}
	}
	for i := range sealed {
		if _, err := s.Open(sealed[:i]); !errors.Is(err, ErrWrongKey) {
			t.Fatalf("cut to %d bytes: got %v", i, err)
		}
	}
}

func TestKeyFileIsMadeOnceAndPrivate(t *testing.T) {
	dir := t.TempDir()
	sealed, err := open(t, dir, "").Seal([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if perm := info.Mode().Perm(); perm != 0o600 {
		t.Fatalf("mode is %04o", perm)
	}
	if _, err := open(t, dir, "").Open(sealed); err != nil {
		t.Fatalf("the second start cannot open what the first sealed: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the directory holds %v, %v", entries, err)
	}
}

func TestTwoStartsAtOnceShareOneKey(t *testing.T) {
	dir := t.TempDir()
	sealers := make([]*Sealer, 8)
	var wg sync.WaitGroup
	for i := range sealers {
		wg.Go(func() {
			s, err := Open(dir, "")
			if err != nil {
				t.Error(err)
				return
			}
			sealers[i] = s
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	sealed, err := sealers[0].Seal([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sealers {
		if _, err := s.Open(sealed); err != nil {
			t.Errorf("start %d has another key: %v", i, err)
		}
	}
}

func TestWrongKey(t *testing.T) {
	sealed, err := open(t, t.TempDir(), "").Seal([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, t.TempDir(), "").Open(sealed); !errors.Is(err, ErrWrongKey) {
		t.Fatalf("got %v", err)
	}
}

func TestKeyFromEnvironment(t *testing.T) {
	dir := t.TempDir()
	key := bytes.Repeat([]byte{0xfb}, 32)
	var sealed []byte
	for _, text := range []string{
		base64.StdEncoding.EncodeToString(key), base64.RawStdEncoding.EncodeToString(key),
		base64.URLEncoding.EncodeToString(key), " " + base64.RawURLEncoding.EncodeToString(key) + "\n",
	} {
		s := open(t, dir, text)
		if sealed == nil {
			sealed, _ = s.Seal([]byte("x"))
		}
		if _, err := s.Open(sealed); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, KeyFile)); !os.IsNotExist(err) {
		t.Errorf("a key file was made although the environment has a key: %v", err)
	}
}

func TestRefused(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, tt := range map[string]struct {
		env, file string
		mode      os.FileMode
		want      string
	}{
		"env not base64":   {env: "%%%canary%%%", want: "not base64"},
		"env too short":    {env: "AAAA", want: "it has 3 bytes, and must have 32"},
		"file for all":     {file: good, mode: 0o644, want: "can be read or written by others (mode 0644): run chmod 600"},
		"file for group":   {file: good, mode: 0o640, want: "mode 0640"},
		"file empty":       {file: " ", mode: 0o600, want: "it has 0 bytes"},
		"file not base64":  {file: "%%%canary%%%", mode: 0o600, want: "not base64"},
		"file is too long": {file: strings.Repeat("A", 2000), mode: 0o600, want: "and must have 32"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.file != "" {
				if err := os.WriteFile(filepath.Join(dir, KeyFile), []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(filepath.Join(dir, KeyFile), tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Open(dir, tt.env)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Fatalf("the error quotes the key: %v", err)
			}
		})
	}
}

func TestNoDirectory(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "missing"), ""); err == nil {
		t.Fatal("a missing directory was accepted")
	}
}
