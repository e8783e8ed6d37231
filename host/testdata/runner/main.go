// Command runner is the child part of tocsin alone, for tests: they are built with cgo under the race detector, and a runner
// must not be.
package main

import (
	"fmt"
	"os"

	"github.com/tocsinhq/tocsin/host/wasm/runner"
)

func main() {
	code, ok := runner.Child(os.Args[1:])
	if !ok {
		fmt.Fprintln(os.Stderr, "this program only runs plugins for tests")
		code = 2
	}
	os.Exit(code)
}
