package storetest

import (
	"maps"
	"strings"
	"testing"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func testOpaques(t *testing.T, b *bench) {
	ctx := t.Context()
	want := make(map[uint32]monitor.Opaque)
	stored := func() {
		t.Helper()
		b.flush(t)
		for range 2 {
			got, err := b.Opaques(ctx)
			no(t, err)
			same(t, got, want)
			b.restart(t)
		}
	}
	put := func(series uint32, of byte, state string) {
		t.Helper()
		o := monitor.Opaque{Series: series, Of: [32]byte{0: of, 31: of}, State: state}
		if !b.PutOpaque(o) {
			t.Fatalf("the state of series %d was dropped", series)
		}
		if want[series] = o; state == "" {
			delete(want, series)
		}
	}
	stored()
	one, two, three := b.monitor(t, "one"), b.monitor(t, "two"), b.monitor(t, "three")
	put(one.Series, 1, "seen 1")
	put(two.Series, 2, "\x00\xff any bytes, \x1b")
	put(three.Series, 0, strings.Repeat("x", sdk.MaxState))
	stored()

	// What replaces a state replaces all of it, and of several in the queue the newest stays.
	put(one.Series, 1, "seen 2")
	put(one.Series, 9, "seen 3")
	put(two.Series, 3, "s")
	stored()

	for _, o := range []monitor.Opaque{
		{Series: one.Series, State: strings.Repeat("x", sdk.MaxState+1)}, {State: "no series"}, {Series: 1 << 24, State: "no such series"},
	} {
		if b.PutOpaque(o) {
			t.Errorf("a state of %d bytes of series %d was taken", len(o.State), o.Series)
		}
	}
	stored()

	// A monitor that is edited keeps it: whether it still fits is for its reader to say.
	one.Target = "http://127.0.0.1/elsewhere"
	no(t, b.UpdateMonitor(ctx, &one))
	stored()

	// An empty one takes it away, also where there is none.
	put(two.Series, 0, "")
	put(two.Series, 0, "")
	stored()

	// It goes with its monitor, and what comes later, as well as what is of no monitor, makes nothing.
	no(t, b.DeleteMonitor(ctx, three.ID, nil))
	put(three.Series, 0, "late")
	put(three.Series+1, 0, "of nobody")
	maps.DeleteFunc(want, func(series uint32, _ monitor.Opaque) bool { return series >= three.Series })
	put(one.Series, 1, "beside them")
	stored()
	b.maintain(t)
	stored()
	no(t, b.DeleteMonitor(ctx, one.ID, nil))
	delete(want, one.Series)
	stored()
}
