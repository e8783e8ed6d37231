package app

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// programsEnv names the folder of the programs that TestMain builds: runner, which the processes of plugins are made of, and
// ticker. Both are built without cgo, which tests are not: a runner that was built with cgo cannot put up all of its wall.
const programsEnv = "TOCSIN_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == crashChild {
		crashMain(os.Args[2:])
	}
	dir, err := os.MkdirTemp("", "tocsin-app-test-")
	if err == nil {
		err = os.Setenv(programsEnv, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	build := exec.Command("go", "build", "-o", dir, "../../host/testdata/runner", "../../host/testdata/ticker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the runner of plugins: %v\n%s", err, out)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}))
}

// program is one of the programs that TestMain built.
func program(name string) string { return filepath.Join(os.Getenv(programsEnv), name) }
