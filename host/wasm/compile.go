package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/tetratelabs/wazero"
)

// Compile compiles a module into opts.Cache, so that New with the same Options only has to load it. It runs no code of
// the module. Its errors are those of New. It does not heed the end of ctx, and a module made for it keeps it busy for
// minutes and gigabytes: the caller must be ready to end the process.
func Compile(ctx context.Context, module []byte, opts Options) error {
	opts = opts.withDefaults()
	if opts.Cache == "" {
		return errors.New("compile the module: there is no folder for the compiled code")
	}
	l, info, err := read(module, opts)
	if err != nil {
		return err
	}
	m := &Module{opts: opts, info: info}
	defer m.release(ctx)
	return m.compile(ctx, l)
}

// compile makes the runtime and compiles the module in it, or loads what was compiled before.
func (m *Module) compile(ctx context.Context, l *layout) (err error) {
	// No WithCloseOnContextDone: it costs every call, and a guest that recurses without a loop ignores it.
	config := wazero.NewRuntimeConfig().WithMemoryLimitPages(m.opts.pages()).WithDebugInfoEnabled(false)
	if m.opts.Cache != "" {
		if m.cache, err = wazero.NewCompilationCacheWithDir(m.opts.Cache); err != nil {
			return fmt.Errorf("open the cache of compiled code: %w", err)
		}
		config = config.WithCompilationCache(m.cache)
	}
	m.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	var rewritten []byte
	rewritten, m.globals = l.rewrite()
	if m.compiled, err = m.runtime.CompileModule(ctx, rewritten); err != nil {
		return fmt.Errorf("compile the module: %w", err)
	}
	return nil
}

// CompiledName names the compiled code of a module: it is another one when the module, this package's changes to it, the
// runtime or the architecture is another one, so that a folder of this name has what New looks for. The error is that of a
// module that cannot be read.
func CompiledName(module []byte) (string, error) {
	l, err := parse(module)
	if err != nil {
		return "", err
	}
	rewritten, _ := l.rewrite()
	sum := sha256.Sum256(rewritten)
	return hex.EncodeToString(sum[:16]) + "-" + runtimeVersion() + "-" + runtime.GOARCH, nil
}

// runtimeVersion is wazero's.
func runtimeVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/tetratelabs/wazero" {
			return dep.Version
		}
	}
	return "unknown"
}
