//go:build linux && !nosnapshot

package wasm

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Every plan restores every byte exactly once and keeps within its bounds.
func TestPlanRestoresEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 4096
		hits := rapid.SliceOfN(rapid.SampledFrom([]uint16{0, 0, 0, 1, lessons / 2, lessons}), 16, 600).Draw(t, "hits")
		p := makePlan(hits, size)
		all := slices.Concat(p.copied, p.dropped)
		slices.SortFunc(all, func(a, b span) int { return a.from - b.from })
		at, kept := 0, 0
		for _, s := range all {
			if s.from != at || s.to <= s.from {
				t.Fatalf("span %v after %d", s, at)
			}
			at = s.to
		}
		for _, s := range p.copied {
			kept += s.to - s.from
		}
		if at != len(hits)*size || kept > maxHot {
			t.Fatalf("it ends at %d of %d and keeps %d", at, len(hits)*size, kept)
		}
	})
}

// Whatever calls write, before, while and after the plan is made, a reset brings the snapshot back.
func TestResetBringsBackEveryByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := newMemory(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Free()
		mem := m.Reallocate(16 * pageSize)
		for range rapid.IntRange(0, 20).Draw(t, "initial") {
			mem[rapid.IntRange(0, len(mem)-1).Draw(t, "at")] = 7
		}
		want := slices.Clone(mem)
		r := m.(resettable)
		img, err := r.snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer img.close()
		if err := r.adopt(img); err != nil {
			t.Fatal(err)
		}
		often := rapid.SliceOfN(rapid.IntRange(0, len(mem)-1), 0, 30).Draw(t, "often")
		for range 2 * lessons {
			for _, at := range often {
				mem[at]++
			}
			mem[rapid.IntRange(0, len(mem)-1).Draw(t, "once")]++
			if !r.reset() || !slices.Equal(mem, want) {
				t.Fatal("it is not as it was")
			}
		}
	})
}
