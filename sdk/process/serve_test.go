package process

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tocsinhq/tocsin/sdk"
)

// TestMain runs the tests, or serves when a test starts this very file to see how that fails.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) < 2:
	case os.Args[1] == "serve-nothing":
		ServePlugin(sdk.Plugin{})
		return
	case os.Args[1] == "serve-fails":
		Serve(ServeOptions{Start: func() (Service, error) { return nil, errors.New("one\ntwo") }})
		return
	}
	goleak.VerifyTestMain(m)
}

// A process that cannot serve says why in one line, and nothing on its standard output.
func TestServeFails(t *testing.T) {
	cookie := Handshake().MagicCookieKey + "=" + Handshake().MagicCookieValue
	for _, tt := range []struct {
		word string
		env  []string
		want string
	}{
		{"serve-nothing", nil, "this program is a plugin of Tocsin; install it with `tocsin plugin install`, which runs it\n"},
		{"serve-nothing", []string{cookie}, "the plugin answers no call: neither Check nor Notify is set\n"},
		{"serve-fails", []string{cookie}, "one two\n"},
		{"serve-fails", []string{cookie, "PLUGIN_UNIX_SOCKET_DIR=/nonexistent"}, "cannot listen for the server that started this plugin\n"},
	} {
		cmd := exec.Command(os.Args[0], tt.word)
		cmd.Env = append(tt.env, "TMPDIR="+t.TempDir())
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || stdout.String() != "" || stderr.String() != tt.want {
			t.Errorf("%s %v: %v, %q, %q\nwant %q", tt.word, tt.env, err, stdout.String(), stderr.String(), tt.want)
		}
	}
}
