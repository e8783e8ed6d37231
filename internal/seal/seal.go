// Package seal encrypts what must not lie readable in the database: the configurations of monitors and channels, which hold
// passwords and tokens.
package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// KeyFile is the name of the key file within the data directory.
const KeyFile = "secret.key"

// ErrWrongKey means that sealed bytes cannot be opened: they were sealed under another key, or changed since.
var ErrWrongKey = errors.New("sealed under another key, or damaged")

// The first byte of everything sealed, so that another cipher can follow one day.
const version1 = 1

// Sealer seals and opens bytes with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under one key. Its random nonces of 192
// bits may be drawn for ever without a repeat. It may be used by many goroutines at once.
type Sealer struct{ aead cipher.AEAD }

// Open returns the sealer of a data directory. The key is fromEnv when that is not empty: 32 bytes in base64, as
// TOCSIN_SECRET_KEY has them. Else it is what dir/secret.key holds; a file that is not there is made with a new random
// key, readable by its owner alone, and one that others may read is refused.
func Open(dir, fromEnv string) (*Sealer, error) {
	if fromEnv != "" {
		key, err := decodeKey(fromEnv)
		if err != nil {
			return nil, fmt.Errorf("read the secret key from TOCSIN_SECRET_KEY: %w", err)
		}
		return newSealer(key)
	}
	path := filepath.Join(dir, KeyFile)
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path)
	}
	if err != nil {
		return nil, err
	}
	return newSealer(key)
}

func newSealer(key []byte) (*Sealer, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("use the secret key: %w", err)
	}
	return &Sealer{aead}, nil
}

// Seal returns plain encrypted and authenticated, 41 bytes longer. Sealing the same bytes twice gives two different answers.
func (s *Sealer) Seal(plain []byte) ([]byte, error) {
	out := make([]byte, 1+chacha20poly1305.NonceSizeX, 1+chacha20poly1305.NonceSizeX+len(plain)+chacha20poly1305.Overhead)
	out[0] = version1
	nonce := out[1:]
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	return s.aead.Seal(out, nonce, plain, out[:1]), nil
}

// Open returns what Seal was given. The error is ErrWrongKey when the key is another one or a bit has changed.
func (s *Sealer) Open(sealed []byte) ([]byte, error) {
	const head = 1 + chacha20poly1305.NonceSizeX
	if len(sealed) < head+chacha20poly1305.Overhead {
		return nil, fmt.Errorf("open %d sealed bytes: too short: %w", len(sealed), ErrWrongKey)
	}
	if sealed[0] != version1 {
		return nil, fmt.Errorf("open sealed bytes: version %d is unknown to this program: %w", sealed[0], ErrWrongKey)
	}
	plain, err := s.aead.Open(nil, sealed[1:head], sealed[head:], sealed[:1])
	if err != nil {
		return nil, fmt.Errorf("open sealed bytes: %w", ErrWrongKey)
	}
	return plain, nil
}

func readKey(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the secret key: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at the secret key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("secret key %s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("secret key %s can be read or written by others (mode %04o): run chmod 600 %s", path, perm, path)
	}
	text, err := io.ReadAll(io.LimitReader(file, 1024))
	if err != nil {
		return nil, fmt.Errorf("read the secret key: %w", err)
	}
	key, err := decodeKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("read the secret key %s: %w", path, err)
	}
	return key, nil
}

// makeKey writes a new key. The file appears whole or not at all, also when two processes start at once: a link does not
// replace what is there, and the loser reads the winner's.
func makeKey(path string) ([]byte, error) {
	key := make([]byte, chacha20poly1305.KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("draw a secret key: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), KeyFile+".*") // 0600
	if err != nil {
		return nil, fmt.Errorf("make the secret key: %w", err)
	}
	_, werr := temp.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	err = errors.Join(werr, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Link(temp.Name(), path)
	}
	if rerr := os.Remove(temp.Name()); rerr != nil && err == nil {
		err = rerr
	}
	if errors.Is(err, fs.ErrExist) {
		return readKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("make the secret key %s: %w", path, err)
	}
	return key, syncDir(filepath.Dir(path))
}

// syncDir makes the key file's name as durable as its bytes: what is sealed under a lost key is lost too.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

func decodeKey(text string) ([]byte, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	key, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		// The decoder's own error says where and quotes nothing, but a position in a key helps nobody.
		return nil, errors.New("it is not base64; make one with: head -c 32 /dev/urandom | base64")
	}
	if len(key) != chacha20poly1305.KeySize {
		return nil, fmt.Errorf("it has %d bytes, and must have %d; make one with: head -c 32 /dev/urandom | base64",
			len(key), chacha20poly1305.KeySize)
	}
	return key, nil
}
