// Package script runs plugins that are JavaScript files, in QuickJS, which is itself a guest of the sandbox. A script
// exports check(request) and notify(request), plain or async, as a module does, and finds tocsin.http, tocsin.open and
// tocsin.log besides the language. It is loaded once, before the snapshot that every call starts from.
//
// Nothing that the engine says is trusted: whoever breaks out of the script is in the sandbox still.
package script

import (
	_ "embed" // the engine and the prelude
)

//go:embed quickjs/quickjs.wasm
var module []byte

//go:embed prelude.js
var prelude []byte

// Module gives the engine's module, for wasm.New and wasm.Compile. It must not be changed.
func Module() []byte { return module }
