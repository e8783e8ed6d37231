package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

const fine = `export function check() { return {status: "up", message: "fine"}; }`

func TestGrant(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	asking := func(version string, allow ...string) pluginFiles {
		f := scripted("ask", fine)
		f[sdk.ManifestFile] = strings.Replace(f[sdk.ManifestFile], "1.0.0", version, 1) + "permissions:\n"
		for _, a := range allow {
			f[sdk.ManifestFile] += "  - {allow: \"" + a + "\", reason: because}\n"
		}
		return f
	}
	v, err := b.Install(t.Context(), asking("1.0.0", "tcp://{target}").archive(t), monitor.PluginInstall{})
	if err != nil || v.Condition != monitor.PluginWaiting {
		t.Fatalf("installed: %s %q, error %v", v.Condition, v.Why, err)
	}
	if diff := cmp.Diff([]monitor.PluginAsk{{Allow: "tcp://{target}", Words: "open TCP connections to the monitor's target, whatever you enter there", Reason: "because"}}, v.Asks); diff != "" {
		t.Error(diff)
	}
	if _, err := b.check("ask", request("x")); err == nil || !strings.Contains(err.Error(), "nobody has granted what it asks for") {
		t.Errorf("a check before the grant: %v", err)
	}
	_, err = b.Grant(t.Context(), "ask", monitor.PluginDecision{Permissions: []string{"tcp://{target}", "tcp://192.0.2.1:80", "nonsense"}})
	var faults monitor.Faults
	if !errors.As(err, &faults) || len(faults) != 2 || faults[0].Field != "permissions[1]" || faults[1].Field != "permissions[2]" {
		t.Errorf("a grant of more than was asked: %v", err)
	}
	if v, err = b.Grant(t.Context(), "ask", monitor.PluginDecision{By: "ann"}); err != nil || v.Condition != monitor.PluginReady || !v.Asks[0].Granted || v.Grant.By != "ann" {
		t.Fatalf("granted: %+v, error %v", v, err)
	}
	b.mustCheck("ask", request("x"))

	// A build that asks for no more runs at once; one that asks for more waits.
	if v, err = b.Install(t.Context(), asking("1.1.0", "tcp://{target}").archive(t), monitor.PluginInstall{}); err != nil || v.Active.Version != "1.1.0" || v.Condition != monitor.PluginReady {
		t.Fatalf("1.1.0: %+v, error %v", v, err)
	}
	b.mustCheck("ask", request("x"))
	v, err = b.Install(t.Context(), asking("1.2.0", "tcp://{target}", "https://example.com").archive(t), monitor.PluginInstall{})
	if err != nil || v.Active.Version != "1.1.0" || v.Pending.Version != "1.2.0" || v.Condition != monitor.PluginReady {
		t.Fatalf("1.2.0: %+v, error %v", v, err)
	}
	if len(v.PendingAsks) != 2 || !v.PendingAsks[0].Granted || v.PendingAsks[1].Granted {
		t.Errorf("it asks for %+v", v.PendingAsks)
	}
	b.close()
	b.open()
	b.mustCheck("ask", request("x"))
	if v, err = b.Grant(t.Context(), "ask", monitor.PluginDecision{Permissions: []string{"tcp://{target}"}}); err != nil || v.Active.Version != "1.2.0" || !v.Pending.IsZero() || v.Asks[1].Granted {
		t.Fatalf("granted in part: %+v, error %v", v, err)
	}
	b.mustCheck("ask", request("x"))

	if err := b.Remove(t.Context(), "ask"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Plugin("ask"); !errors.Is(err, monitor.ErrNotFound) {
		t.Errorf("after its removal: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(b.opts.Dir, "installed", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}

func TestRefusedPlugins(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(o *Options) {
		o.Taken = func(name string, _ []string) string {
			if name == "http" {
				return "its name is taken"
			}
			return ""
		}
	})
	for name, tt := range map[string]struct {
		files pluginFiles
		want  string
	}{
		"name":    {scripted("http", fine), "its name is taken"},
		"syntax":  {scripted("x", "export function check( {"), "check.js:1"},
		"no call": {scripted("x", "export function other() {}"), "check"},
		"starts":  {scripted("x", "throw new Error('at the start')\n"+fine), "at the start"},
		"loops":   {scripted("x", "for (;;);\n"+fine), "it was not ready within 10s"},
		"module":  {moduled("x", "\x00asm\x01\x00\x00\x00"), "check.wasm"},
		"rubbish": {moduled("x", "rubbish"), "check.wasm"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := b.Install(t.Context(), tt.files.archive(t), monitor.PluginInstall{Grant: true})
			var faults monitor.Faults
			if !errors.As(err, &faults) || faults[0].Field != "archive" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want a fault of the archive with %q", err, tt.want)
			}
		})
	}
	t.Cleanup(func() {
		if all := b.Plugins(); len(all) > 0 {
			t.Errorf("installed: %+v", all)
		}
		if left, err := filepath.Glob(filepath.Join(b.opts.Dir, "installed", "*", "*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, error %v", left, err)
		}
	})
}

func TestLimits(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.install(scripted("moody", moody, "limits: {timeout: 5s}"))
	_, err := b.SetLimits(t.Context(), "moody", sdk.Limits{Memory: 1, Timeout: 1, Concurrency: 1000})
	var faults monitor.Faults
	if !errors.As(err, &faults) || len(faults) != 3 {
		t.Errorf("limits out of bounds: %v", err)
	}
	v, err := b.SetLimits(t.Context(), "moody", sdk.Limits{Timeout: sdk.MinTimeout})
	if err != nil || v.InForce.Timeout != sdk.MinTimeout || v.InForce.Concurrency != sdk.DefaultConcurrency {
		t.Fatalf("%+v, error %v", v.InForce, err)
	}
	if _, err := b.check("moody", request("loop")); err == nil || !strings.Contains(err.Error(), "exceeded its deadline") {
		t.Errorf("beyond the operator's limit: %v", err)
	}
}

func TestForeignFilesAreSwept(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.install(scripted("moody", moody))
	b.close()
	stray := filepath.Join(b.opts.Dir, "installed", "moody", ".new-1")
	if err := os.Mkdir(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	b.open()
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what an install left behind is still there: %v", err)
	}
	b.mustCheck("moody", request("ok"))
}

// Compiled code that is not there, as after a restored backup or an upgrade of the server, is made anew.
func TestCompiledAnew(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.install(scripted("moody", moody))
	b.install(moduled("good", string(readGuest(t, "good", "good.wasm"))))
	b.close()
	if err := os.RemoveAll(filepath.Join(b.opts.Dir, "compiled")); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.mustCheck("moody", request("ok"))
	b.mustCheck("good", request("anything"))
	if left, err := filepath.Glob(filepath.Join(b.opts.Dir, "compiled", "*", "*")); err != nil || len(left) != 2 {
		t.Errorf("compiled: %v, error %v", left, err)
	}
}
