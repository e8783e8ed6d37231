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
