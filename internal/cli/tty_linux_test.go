package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminalPair opens a pseudo-terminal: what is written to one end is read at the other.
func terminalPair(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// onTerminal runs a command on a terminal on which a person has typed the answer, and returns what stood on the screen.
func onTerminal(t *testing.T, answer string, environ []string, args ...string) (code int, screen string) {
	t.Helper()
	person, program := terminalPair(t)
	if _, err := person.WriteString(answer); err != nil {
		t.Fatal(err)
	}
	code = Main(t.Context(), Options{
		Args: args, Stdin: program, Stdout: program, Stderr: program, Environ: environ, Server: &fakeServer{},
	})
	// The mark is read last; reading to the end would wait for ever.
	const mark = "<end>"
	if _, err := program.WriteString(mark); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	for !strings.Contains(screen, mark) {
		n, err := person.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		screen += string(buf[:n])
	}
	return code, screen
}

// oneMonitor is a server with a monitor, which counts what is removed and answers slowly when it is told to.
func oneMonitor(t *testing.T, slow <-chan struct{}) (url string, removed *int) {
	t.Helper()
	removed = new(int)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slow != nil {
			<-slow
		}
		if r.Method == http.MethodDelete {
			*removed++
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_, _ = io.WriteString(w, `{"items":[{"id":"1","name":"web","state":"down"}],"next_cursor":null}`)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, removed
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]int{"y\n": 1, "yes\n": 1, "n\n": 0, "\n": 0, "yep\n": 0} {
		url, removed := oneMonitor(t, nil)
		code, screen := onTerminal(t, answer, []string{"TOCSIN_URL=" + url}, "monitor", "rm", "web")
		if *removed != want || code != 1-want || !strings.Contains(screen, "remove monitor web?") {
			t.Errorf("answer %q: %d removed, exit code %d, on the screen %q", answer, *removed, code, screen)
		}
	}
}

func TestColour(t *testing.T) {
	url, _ := oneMonitor(t, nil)
	_, plain := onTerminal(t, "", []string{"TOCSIN_URL=" + url, "NO_COLOR=1"}, "monitor", "list")
	_, coloured := onTerminal(t, "", []string{"TOCSIN_URL=" + url}, "monitor", "list")
	if strings.Contains(plain, "\x1b[") || !strings.Contains(coloured, "\x1b[31mdown\x1b[0m") {
		t.Errorf("with NO_COLOR %q, without %q", plain, coloured)
	}
}

// TestProgress has a server that answers only once something is shown.
func TestProgress(t *testing.T) {
	slow := make(chan struct{})
	url, _ := oneMonitor(t, slow)
	person, program := terminalPair(t)
	shown := make(chan string, 1)
	go func() {
		buf := make([]byte, 1024)
		n, err := person.Read(buf)
		if err == nil {
			shown <- string(buf[:n])
		}
		close(slow)
	}()
	var stdout strings.Builder
	code := Main(t.Context(), Options{
		Args: []string{"monitor", "list", "--json"}, Stdin: program, Stdout: &stdout, Stderr: program,
		Environ: []string{"TOCSIN_URL=" + url}, Server: &fakeServer{},
	})
	if code != 0 || !strings.Contains(stdout.String(), `"web"`) || strings.Contains(stdout.String(), "asking") {
		t.Errorf("exit code %d, stdout %q", code, &stdout)
	}
	if got := <-shown; !strings.Contains(got, "asking the server, 1 s") {
		t.Errorf("shown: %q", got)
	}
}

// TestConsent shows what a plugin asks for before it asks whether to grant it.
func TestConsent(t *testing.T) {
	file := archiveFile(t)
	for answer, granted := range map[string]bool{"y\n": true, "n\n": false, "\n": false, "\x04": false} {
		s := newPluginServer(t)
		code, screen := onTerminal(t, answer, []string{"TOCSIN_URL=" + s.URL, "NO_COLOR=1"}, "plugin", "install", file)
		asked := strings.Index(screen, "Grant this? [y/N]")
		if code != 0 || asked < 0 || !strings.Contains(screen[:asked], "open TCP connections to 10.0.0.1 (in a private network)") {
			t.Errorf("answer %q: exit code %d, on the screen %q", answer, code, screen)
		}
		if len(s.asked) != 1 && !granted || granted && (len(s.asked) != 2 || s.sent[1] != `{"allow_private":false,"digest":"d1"}`) {
			t.Errorf("answer %q: asked %v, sent %v", answer, s.asked, s.sent)
		}
		if waits := strings.Contains(screen, "tocsin plugin grant redis"); waits == granted {
			t.Errorf("answer %q: on the screen %q", answer, screen)
		}
	}
	s := newPluginServer(t)
	if _, screen := onTerminal(t, "y\n", []string{"TOCSIN_URL=" + s.URL}, "plugin", "install", file, "--allow-private"); !strings.Contains(screen, "private addresses too?") ||
		len(s.sent) != 2 || s.sent[1] != `{"allow_private":true,"digest":"d1"}` {
		t.Errorf("sent %v, on the screen %q", s.sent, screen)
	}
	// Standard output is for JSON alone: nobody is asked.
	s = newPluginServer(t)
	if code, screen := onTerminal(t, "", []string{"TOCSIN_URL=" + s.URL}, "plugin", "install", file, "--json"); code != 0 || strings.Contains(screen, "Grant") {
		t.Errorf("exit code %d, on the screen %q", code, screen)
	}
	if code, screen := onTerminal(t, "n\n", []string{"TOCSIN_URL=" + s.URL}, "plugin", "remove", "redis"); code != 1 || !strings.Contains(screen, "nothing was removed") {
		t.Errorf("exit code %d, on the screen %q", code, screen)
	}
	if _, screen := onTerminal(t, "", []string{"TOCSIN_URL=" + s.URL}, "plugin", "inspect", "redis"); !strings.Contains(screen, "\x1b[31m✗ not granted\x1b[0m") {
		t.Errorf("on the screen %q", screen)
	}
}
