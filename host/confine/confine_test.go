package confine

import (
	"encoding/json"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func onAMD64() bool { return runtime.GOARCH == "amd64" }

func TestMissing(t *testing.T) {
	all := []string{
		LayerProcess, LayerPrivileges, LayerLimits, LayerNetwork, LayerLandlock, LayerSeccomp, LayerNoSockets, LayerNoFiles,
		LayerNoPrograms, LayerNoSignals,
	}
	for _, c := range []struct {
		name, system string
		not          []string
		missing      []string
		isolation    string
	}{
		{name: "all", system: "linux", isolation: "full"},
		{name: "no landlock", system: "linux", not: []string{LayerLandlock}, isolation: "partial"},
		{name: "files", system: "linux", not: []string{LayerLandlock, LayerNoFiles}, missing: []string{LayerNoFiles}, isolation: "degraded"},
		{name: "no seccomp", system: "linux", not: []string{LayerSeccomp}, isolation: "partial"},
		{name: "neither", system: "linux", not: []string{LayerSeccomp, LayerLandlock}, missing: []string{missingFilter}, isolation: "degraded"},
		{name: "sockets", not: []string{LayerNoSockets}, missing: []string{LayerNoSockets}, isolation: "degraded"},
		{name: "nothing", not: all, missing: []string{LayerProcess, LayerLimits, LayerNoSockets, LayerNoFiles, missingFilter}, isolation: "degraded"},
		{name: "elsewhere", system: "darwin", not: all[1:], isolation: "basic"},
		{name: "elsewhere with an environment", system: "windows", not: all, missing: []string{LayerProcess}, isolation: "degraded"},
	} {
		r := Report{System: c.system}
		for _, name := range all {
			r.Layers = append(r.Layers, Layer{Name: name, Holds: !slices.Contains(c.not, name)})
		}
		if diff := cmp.Diff(c.missing, append([]string(nil), r.Missing()...)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if got := r.Isolation(); got != c.isolation {
			t.Errorf("%s: %s, want %s", c.name, got, c.isolation)
		}
		var again Report
		if b, err := json.Marshal(r); err != nil || json.Unmarshal(b, &again) != nil || !cmp.Equal(r, again) {
			t.Errorf("%s: it changes on the way: %s, %v", c.name, b, err)
		}
	}
	if len(Report{}.Missing()) != 5 {
		t.Error("an empty report lacks nothing")
	}
}

func TestStrangers(t *testing.T) {
	got := strangers([]string{"PLUGIN_MIN_PORT=1", "PLUGIN=x", "HOME=/root", "GODEBUG=a=b", "=C:=x", "TOCSIN_PLUGIN_X"}, []string{"PLUGIN_*", "GODEBUG", "TOCSIN_PLUGIN"})
	if diff := cmp.Diff([]string{"PLUGIN", "HOME", "", "TOCSIN_PLUGIN_X"}, got); diff != "" {
		t.Error(diff)
	}
	if strangers([]string{"ANY=1"}, []string{"*"}) != nil {
		t.Error("a lone * does not stand for all")
	}
}
