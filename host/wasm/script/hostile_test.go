package script

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tocsinhq/tocsin/host/wasm"
)

// broken is an engine in which a script has got the upper hand: every call makes one call of the host with values that
// no engine gives.
type broken struct{ engine }

type brokenProgram struct {
	wasm.Program
	random *rand.Rand
}

func (b broken) Start(ctx context.Context, g *wasm.Guest) (wasm.Program, error) {
	p, err := b.engine.Start(ctx, g)
	return brokenProgram{p, rand.New(rand.NewPCG(1, 2))}, err
}

func (p brokenProgram) Call(ctx context.Context, g *wasm.Guest, _ string) error {
	s := begin(ctx, g, "x")
	defer s.end()
	names := []string{"open", "read", "write", "close", "http", "reason", "log", "random", "encode", "decode", "base64", "", "fly"}
	name := names[p.random.IntN(len(names))]
	size := g.Memory().Size()
	good := []value{
		s.str([]byte("/net/tcp/echo:1")), s.str([]byte("\xed\xa0\x80")), s.buffer([]byte("abc")), s.buffer(nil),
		s.newNumber(0), s.newNumber(-1), s.value("qjs_new_number", math.Float64bits(math.NaN())),
		s.value("qjs_new_number", math.Float64bits(1e300)), s.value("qjs_get_undefined"), s.value("qjs_new_object"),
	}
	address := func() uint32 {
		switch p.random.IntN(8) {
		case 0:
			return size - p.random.Uint32N(16)
		case 1:
			return math.MaxUint32 - p.random.Uint32N(16)
		case 2:
			return p.random.Uint32()
		case 3:
			return 0
		case 4:
			return p.random.Uint32N(size)
		}
		return uint32(good[p.random.IntN(len(good))])
	}
	argc := p.random.Uint32N(6)
	list := s.put(make([]byte, 64))
	for i := range argc {
		g.Memory().WriteUint32Le(list+4*i, address())
	}
	params := []uint64{uint64(s.put([]byte(name))), uint64(len(name)), uint64(address()), uint64(argc), uint64(list)}
	for i := range params {
		if p.random.IntN(20) == 0 {
			params[i] = uint64(address())
		}
	}
	for range 3 {
		s.hostCall(params)
	}
	s.cString(address())
	s.view(good[2], address(), address())
	return s.err
}

func TestHostTrustsNothing(t *testing.T) {
	e := broken{Engine([]byte("export const check = () => ({})"), "check.js").(engine)}
	m := open(t, "", wasm.Options{Engine: e})
	n := &network{answer: func(map[string]any) (any, *failure) { return "x", nil }}
	var traps, faults int
	for range 3000 {
		_, err := m.Call(context.Background(), wasm.Call{Name: "check", Request: []byte("{}"), FS: n})
		if _, crashed := errors.AsType[*wasm.TrapError](err); crashed {
			traps++
		} else if err != nil {
			faults++
		}
	}
	t.Logf("%d traps, %d faults", traps, faults)
	if traps+faults == 0 {
		t.Error("nothing went wrong")
	}
	if n.open != 0 {
		t.Errorf("%d files are open", n.open)
	}
}
