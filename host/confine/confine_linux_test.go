package confine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf/arch"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The job and the result of testdata/prisoner.
type job struct {
	Mode     string
	Policy   Policy
	Prepare  bool
	Env      []string
	Dir      string
	Sockets  string
	Reckless bool
	Seal     bool
}

type result struct {
	Report   Report
	Error    string
	Took     time.Duration
	Attempts []tried
	Works    []tried
	Parent   []tried
	Exit     string
	Stderr   string
}

type tried struct {
	Name, Error string
	Refused     bool
}

func (r result) find(name string) (tried, bool) {
	i := slices.IndexFunc(r.Attempts, func(a tried) bool { return a.Name == name })
	if i < 0 {
		return tried{}, false
	}
	return r.Attempts[i], true
}

func layer(r Report, name string) Layer {
	for _, l := range r.Layers {
		if l.Name == name {
			return l
		}
	}
	return Layer{}
}

// prison is a compiled prisoner, and where it can be executed by everybody.
type prison struct{ dir, program string }

// built is compiled once for all tests: it is without cgo, whatever the tests are.
var built = sync.OnceValues(func() (prison, error) {
	dir, err := os.MkdirTemp("", "tocsin-confine")
	if err != nil {
		return prison{}, err
	}
	p := prison{dir, filepath.Join(dir, "prisoner")}
	if err := os.Chmod(dir, 0o755); err != nil {
		return p, err
	}
	return p, build(p.program, "CGO_ENABLED=0")
})

func build(program, cgo string) error {
	cmd := exec.Command("go", "build", "-o", program, "./testdata/prisoner")
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the prisoner: %w\n%s", err, out)
	}
	return nil
}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if p, err := built(); err == nil {
			os.RemoveAll(p.dir)
		}
		os.Exit(code)
	}))
}

// users are those to be run as: ourselves, and somebody without rights when we can become that.
func users() map[string]uint32 {
	u := map[string]uint32{"self": uint32(os.Geteuid())}
	if os.Geteuid() == 0 {
		u["unprivileged"] = 65534
	}
	return u
}

func everyUser(t *testing.T, f func(t *testing.T, uid uint32)) {
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) { f(t, uid) })
	}
}

// lay makes the files of a job, owned by the user.
func lay(t *testing.T, uid uint32) (dir, sockets string) {
	t.Helper()
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir, err = os.MkdirTemp(p.dir, "job")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"", "folder", "writable", "s"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"secret": "the secret", "file": "allowed", "folder/inside": "allowed"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret", filepath.Join(dir, "folder/link")); err != nil {
		t.Fatal(err)
	}
	if uid != uint32(os.Geteuid()) {
		for _, name := range []string{"", "folder", "writable", "s", "secret", "file", "folder/inside"} {
			if err := os.Chown(filepath.Join(dir, name), int(uid), int(uid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir, filepath.Join(dir, "s")
}

func runnerPolicy(dir string) Policy {
	return Policy{
		Read:   []string{filepath.Join(dir, "file"), filepath.Join(dir, "folder")},
		Memory: 512 << 20, Keep: []int{3, 4}, Env: []string{"PLUGIN_*", "TOCSIN_PLUGIN"},
	}
}

// imprison runs a prisoner and a server for it as the user, the way that the policy is after change.
func imprison(t *testing.T, uid uint32, mode string, change func(*job)) result {
	t.Helper()
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return imprisonIn(t, p.program, uid, mode, change)
}

func imprisonIn(t *testing.T, program string, uid uint32, mode string, change func(*job)) result {
	t.Helper()
	cmd := command(t, program, uid, mode, change)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var r result
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, &stderr)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r
}

func command(t *testing.T, program string, uid uint32, mode string, change func(*job)) *exec.Cmd {
	t.Helper()
	dir, sockets := lay(t, uid)
	j := job{Mode: mode, Policy: runnerPolicy(dir), Prepare: true, Env: []string{"PLUGIN_MIN_PORT=1"}, Dir: dir, Sockets: sockets}
	if change != nil {
		change(&j)
	}
	arg, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, "parent", string(arg))
	cmd.Env = []string{"TOCSIN_SECRET=canary", "PATH=/usr/bin:/bin"}
	cmd.Dir = dir
	if uid != uint32(os.Geteuid()) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	return cmd
}

// kernel is what this system offers, found out by other means than those of the package.
type kernel struct {
	landlock   int // version, 0 without
	seccomp    bool
	namespaces bool // for the user
}

func offers(t *testing.T, uid uint32) (k kernel) {
	t.Helper()
	if abi, err := ll.LandlockGetABIVersion(); err == nil {
		k.landlock = abi
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	k.seccomp = strings.Contains(string(status), "Seccomp:")
	user := &syscall.SysProcAttr{}
	if uid != uint32(os.Geteuid()) {
		user.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	for _, args := range [][]string{{"--net"}, {"--user", "--net"}} {
		cmd := exec.Command("unshare", append(args, "true")...)
		cmd.SysProcAttr = user
		k.namespaces = k.namespaces || cmd.Run() == nil
	}
	return k
}

// sealed says which layers must hold after Seal.
func (k kernel) sealed() map[string]bool {
	want := k.holds()
	want[LayerSealed], want[LayerNoFiles] = k.seccomp, k.seccomp || k.landlock > 0
	return want
}

// holds says which layers must hold on a kernel behind Apply, and which must not.
func (k kernel) holds() map[string]bool {
	return map[string]bool{
		LayerProcess: true, LayerLimits: true, LayerPrivileges: true, LayerNetwork: k.namespaces,
		LayerLandlock: k.landlock > 0, LayerSeccomp: k.seccomp,
		LayerNoSockets: k.seccomp, LayerNoFiles: k.landlock > 0, LayerNoPrograms: k.landlock > 0 || k.seccomp,
		LayerNoSignals: k.landlock >= 6 || k.seccomp,
	}
}

func checkLayers(t *testing.T, r Report, want map[string]bool) {
	t.Helper()
	for name, holds := range want {
		if l := layer(r, name); l.Holds != holds || l.Detail == "" && name != LayerProcess {
			t.Errorf("layer %q holds: %v, want %v (%s)", name, l.Holds, holds, l.Detail)
		}
	}
	if len(r.Layers) != len(want) {
		t.Errorf("%d layers, want %d", len(r.Layers), len(want))
	}
}

// Whatever native code tries in the guest's place fails, and fails because it is refused.
func TestNothingForbiddenSucceeds(t *testing.T) {
	everyUser(t, func(t *testing.T, uid uint32) {
		k := offers(t, uid)
		t.Logf("this kernel: %+v", k)
		r := imprison(t, uid, "attack", func(j *job) { j.Reckless = true })
		checkLayers(t, r.Report, k.holds())
		if k.seccomp && k.landlock > 0 {
			if missing := r.Report.Missing(); len(missing) > 0 {
				t.Errorf("missing: %v", missing)
			}
		} else {
			t.Logf("this kernel lacks a layer: what it is for is not looked at")
		}
		checkRefused(t, k, r, 350)
	})
}

// What loading needed is gone when the process is sealed, also where there is no Landlock.
func TestSealed(t *testing.T) {
	everyUser(t, func(t *testing.T, uid uint32) {
		k := offers(t, uid)
		for name, c := range map[string]struct {
			without []string
			falls   []string
			missing []string
			lacks   func(*kernel)
		}{
			"all":              {},
			"without landlock": {without: []string{LayerLandlock}, lacks: func(k *kernel) { k.landlock = 0 }},
			"without the seal": {without: []string{LayerSealed}},
			"with neither": {
				without: []string{LayerLandlock, LayerSealed}, falls: []string{LayerNoFiles}, missing: []string{LayerNoFiles},
				lacks: func(k *kernel) { k.landlock = 0 },
			},
			"without seccomp": {
				without: []string{LayerSeccomp}, falls: []string{LayerSealed, LayerNoSockets}, missing: []string{LayerNoSockets},
				lacks: func(k *kernel) { k.seccomp = false },
			},
		} {
			t.Run(name, func(t *testing.T) {
				mode := "attack"
				if len(c.without) > 0 && c.without[0] != LayerLandlock || len(c.without) > 1 {
					mode = "report" // what is not refused then is not tried
				}
				r := imprison(t, uid, mode, func(j *job) {
					j.Reckless, j.Seal, j.Policy.Without = true, true, c.without
				})
				k := k
				if c.lacks != nil {
					c.lacks(&k)
				}
				want := k.sealed()
				for _, name := range slices.Concat(c.without, c.falls) {
					want[name] = false
				}
				checkLayers(t, r.Report, want)
				if missing := r.Report.Missing(); k.seccomp && !slices.Equal(missing, c.missing) {
					t.Errorf("missing %q, want %q", missing, c.missing)
				}
				if mode != "attack" || !k.seccomp {
					return
				}
				k.landlock = max(k.landlock, 1) // no file is opened now, whoever refuses it
				checkRefused(t, k, r, 360)
				if name == "without landlock" {
					return
				}
				if a, ok := r.find("open /proc/self/ns/net"); !ok || !a.Refused {
					t.Errorf("%+v", a)
				}
			})
		}
	})
}

// checkRefused holds every attempt against what this kernel can refuse.
func checkRefused(t *testing.T, k kernel, r result, atLeast int) {
	t.Helper()
	if r.Exit != "exit status 0" || r.Error != "" || len(r.Attempts) < atLeast {
		t.Fatalf("%d attempts, %s, %s\n%s", len(r.Attempts), r.Exit, r.Error, r.Stderr)
	}
	t.Logf("%d attempts; confined in %v", len(r.Attempts), r.Took)
	for _, a := range r.Attempts {
		file := strings.HasPrefix(a.Name, "open ") && !strings.HasPrefix(a.Name, "open for writing") && !strings.Contains(a.Name, "O_PATH")
		switch {
		case !k.seccomp, file && k.landlock == 0:
		case a.Name == "open /proc/self/ns/net":
			// Landlock lets it open what stands for its own namespaces. That is a descriptor that it can do nothing with.
		case a.Name == "the leaked descriptor":
			if a.Error != unix.EBADF.Error() {
				t.Errorf("%s: %q", a.Name, a.Error)
			}
		case a.Error == "":
			t.Errorf("%s: it succeeded", a.Name)
		case !a.Refused:
			t.Errorf("%s: it failed only by accident: %s", a.Name, a.Error)
		}
	}
}

// The same attempts, with nothing taken away, do succeed: the test above can fail.
func TestAttemptsSucceedUnconfined(t *testing.T) {
	uid := slices.Max([]uint32{users()["self"], users()["unprivileged"]})
	r := imprison(t, uid, "inherit", func(j *job) {
		j.Prepare = false
		j.Policy.Without = []string{LayerProcess, LayerPrivileges, LayerLimits, LayerLandlock, LayerSeccomp}
	})
	if missing := r.Report.Missing(); !slices.Equal(missing, []string{LayerProcess, LayerLimits, LayerNoSockets, LayerNoFiles, missingFilter}) {
		t.Errorf("missing: %v", missing)
	}
	for name, holds := range map[string]bool{LayerNoSockets: false, LayerNoFiles: false, LayerNoPrograms: false, LayerNoSignals: false} {
		if l := layer(r.Report, name); l.Holds != holds {
			t.Errorf("layer %q holds: %v (%s)", name, l.Holds, l.Detail)
		}
	}
	succeeded := 0
	for _, a := range r.Attempts {
		if a.Error == "" {
			succeeded++
		}
	}
	if succeeded < 100 {
		t.Errorf("%d of %d attempts succeed", succeeded, len(r.Attempts))
	}
	for _, name := range []string{
		"socket family 1 type 1", "socket family 2 type 1", "socket family 2 type 2", "socket family 16 type 3", "socketpair",
		"pass a descriptor out", "open /", "open /etc/passwd", "open /proc/self/mem", "open /proc/self/environ", "the leaked descriptor",
		"write secret", "rename secret", "unlink secret", "start a program", "fork",
		"signal 0 to the parent", "SIGCONT to the parent", "tgkill the parent", "pidfd of the parent", "write and execute",
		"make written memory executable too", "prctl dumpable", "prctl name", "fcntl F_SETOWN of the parent",
		"more descriptors than allowed", "pipe", "statx", "uname", "timer_create", "inotify",
	} {
		if a, ok := r.find(name); !ok || a.Error != "" {
			t.Errorf("%s: %q, %v", name, a.Error, ok)
		}
	}
}

// What a runner does goes on.
func TestWhatIsNeededWorks(t *testing.T) {
	everyUser(t, func(t *testing.T, uid uint32) {
		r := imprison(t, uid, "work", nil)
		checkLayers(t, r.Report, offers(t, uid).holds())
		checkWorks(t, r, 10)
		if len(r.Parent) != 2 {
			t.Errorf("the parent saw %v", r.Parent)
		}
	})
}

func checkWorks(t *testing.T, r result, atLeast int) {
	t.Helper()
	if r.Exit != "exit status 0" || r.Error != "" || len(r.Works) < atLeast {
		t.Fatalf("%d things worked, %s, %s\n%s", len(r.Works), r.Exit, r.Error, r.Stderr)
	}
	for _, a := range slices.Concat(r.Works, r.Parent) {
		if a.Error != "" {
			t.Errorf("%s: %s", a.Name, a.Error)
		}
	}
}

// The compiler can write to its folder, and do nothing else more than a runner.
func TestCompiler(t *testing.T) {
	everyUser(t, func(t *testing.T, uid uint32) {
		k := offers(t, uid)
		r := imprison(t, uid, "compile", func(j *job) {
			j.Policy.Read = j.Policy.Read[:1]
			j.Policy.Write = []string{filepath.Join(j.Dir, "writable")}
		})
		checkLayers(t, r.Report, k.holds())
		checkWorks(t, r, 4)
		if k.landlock == 0 {
			t.Logf("this kernel has no Landlock: where the compiler writes is not looked at")
			return
		}
		// Those calls the compiler has. Where it may, Landlock says, and only after the path itself was found to be of the kind asked for.
		var rest []tried
		for _, a := range r.Attempts {
			switch {
			case a.Name == "open with O_PATH": // gives a name for a file, and no way to its content
			case strings.HasPrefix(a.Name, "open for writing "), strings.HasPrefix(a.Name, "unlink "), strings.HasPrefix(a.Name, "mkdir in /proc"), strings.HasPrefix(a.Name, "create in /proc"),
				strings.HasPrefix(a.Name, "rename "), strings.HasPrefix(a.Name, "create without a name"):
				if a.Error == "" {
					t.Errorf("%s: it succeeded", a.Name)
				}
			default:
				rest = append(rest, a)
			}
		}
		r.Attempts = rest
		checkRefused(t, k, r, 240)
	})
}

// Each layer left out is noticed, by what is missing or by the report, and the others still hold.
func TestWithoutALayer(t *testing.T) {
	everyUser(t, func(t *testing.T, uid uint32) {
		k := offers(t, uid)
		for _, c := range []struct {
			name    string
			without []string
			change  func(*job)
			falls   []string // layers that do not hold then
			missing []string
		}{
			{name: "nothing"},
			{name: "process", without: []string{LayerProcess}, missing: []string{LayerProcess}},
			{
				name: "empty environment", change: func(j *job) { j.Env = append(j.Env, "AWS_SECRET=x", "TOCSIN_PLUGINX=y") },
				falls: []string{LayerProcess}, missing: []string{LayerProcess},
			},
			{name: "limits", without: []string{LayerLimits}, missing: []string{LayerLimits}},
			{name: "limit on memory", change: func(j *job) { j.Policy.Memory = 0 }, falls: []string{LayerLimits}, missing: []string{LayerLimits}},
			{name: "room in memory", change: func(j *job) { j.Policy.Memory = 1 << 20 }, falls: []string{LayerLimits}, missing: []string{LayerLimits}},
			{name: "privileges", without: []string{LayerPrivileges}},
			{name: "network", without: []string{LayerNetwork}},
			{name: "preparation", change: func(j *job) { j.Prepare = false }, falls: []string{LayerNetwork}},
			{name: "landlock", without: []string{LayerLandlock}, falls: []string{LayerNoFiles}, missing: []string{LayerNoFiles}},
			{name: "seccomp", without: []string{LayerSeccomp}, falls: []string{LayerNoSockets}, missing: []string{LayerNoSockets}},
			{
				name: "both", without: []string{LayerLandlock, LayerSeccomp},
				falls:   []string{LayerNoFiles, LayerNoSockets, LayerNoPrograms, LayerNoSignals},
				missing: []string{LayerNoSockets, LayerNoFiles, missingFilter},
			},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := imprison(t, uid, "report", func(j *job) {
					j.Policy.Without = c.without
					if c.change != nil {
						c.change(j)
					}
				})
				if r.Error != "" || r.Exit != "exit status 0" {
					t.Fatalf("%s, %s\n%s", r.Error, r.Exit, r.Stderr)
				}
				want := k.holds()
				for _, name := range slices.Concat(c.without, c.falls) {
					want[name] = false
				}
				if slices.Contains(c.without, LayerSeccomp) && k.landlock < 6 {
					want[LayerNoSignals] = false
				}
				if slices.Contains(c.without, LayerSeccomp) && k.landlock < 1 {
					want[LayerNoPrograms] = false
				}
				checkLayers(t, r.Report, want)
				for _, name := range c.without {
					if d := layer(r.Report, name).Detail; d != "left out" {
						t.Errorf("%s: %q", name, d)
					}
				}
				missing := slices.Clone(c.missing)
				if !k.seccomp && !slices.Contains(missing, LayerNoSockets) {
					missing = append(missing, LayerNoSockets)
				}
				if !want[LayerLandlock] && !want[LayerSeccomp] && !slices.Contains(missing, missingFilter) {
					missing = append(missing, missingFilter)
				}
				if got := r.Report.Missing(); !slices.Equal(got, missing) {
					t.Errorf("missing %q, want %q", got, missing)
				}
			})
		}
	})
}

// What it does not survive.
func TestKilled(t *testing.T) {
	everyUser(t, func(t *testing.T, uid uint32) {
		k := offers(t, uid)
		for mode, want := range map[string]struct {
			exit, says string
			amd64      bool
		}{
			"other architecture": {exit: "signal: bad system call", amd64: true},
			"x32":                {exit: "signal: bad system call", amd64: true},
			"memory":             {exit: "exit status 2", says: "out of memory"},
			"mapped memory":      {exit: "exit status 4", says: "no more: cannot allocate memory"},
			"file size":          {exit: "exit status 3", says: "file too large"},
			"core":               {exit: "signal: aborted", says: "on purpose"},
		} {
			if want.amd64 && (!k.seccomp || !onAMD64()) {
				t.Logf("%s: not on this system", mode)
				continue
			}
			r := imprison(t, uid, mode, func(j *job) { j.Policy.Memory = 256 << 20 })
			if r.Exit != want.exit || !strings.Contains(r.Stderr, want.says) || strings.Contains(r.Stderr, "SURVIVED") {
				t.Errorf("%s: %s, want %s and %q; it said:\n%.600s", mode, r.Exit, want.exit, want.says, r.Stderr)
			}
		}
	})
}

// When the server is killed, those whom it started end, whatever they have become since.
func TestEndsWithTheServer(t *testing.T) {
	everyUser(t, func(t *testing.T, uid uint32) {
		p, err := built()
		if err != nil {
			t.Fatal(err)
		}
		cmd := command(t, p.program, uid, "orphan", nil)
		out, err := cmd.Output() // it prints the child's pid, and kills itself
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.String() != "signal: killed" {
			t.Fatalf("%v: %s", err, out)
		}
		child, err := strconv.Atoi(string(out))
		if err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range 2000 {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
			if err != nil || strings.Contains(string(stat), ") Z ") { // nobody may be there to reap it
				return
			}
			<-tick.C
		}
		t.Errorf("%d is still there", child)
		unix.Kill(child, unix.SIGKILL)
	})
}

// With cgo nothing that must reach all threads is taken for done.
func TestCgo(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Logf("there is no C compiler to build with cgo: %v", err)
		return
	}
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(p.dir, "prisoner-cgo")
	if err := build(program, "CGO_ENABLED=1"); err != nil {
		t.Fatal(err)
	}
	r := imprisonIn(t, program, uint32(os.Geteuid()), "report", func(j *job) { j.Policy.Memory = 4 << 30 })
	for _, name := range []string{LayerPrivileges, LayerLandlock, LayerSeccomp} {
		if l := layer(r.Report, name); l.Holds || l.Detail != cgoDetail {
			t.Errorf("%+v", l)
		}
	}
	if got := r.Report.Missing(); !slices.Equal(got, []string{LayerNoSockets, LayerNoFiles, missingFilter}) {
		t.Errorf("missing %q", got)
	}
}

// The lists name calls that both architectures have.
func TestSyscallNames(t *testing.T) {
	for goarch, writes := range map[string]bool{"amd64": true, "arm64": true} {
		info, err := arch.GetInfo(goarch)
		if err != nil {
			t.Fatal(err)
		}
		if number, _, ok := auditArch(goarch); !ok || number != uint32(info.ID) {
			t.Errorf("%s is %x, want %x", goarch, number, info.ID)
		}
		for _, g := range slices.Concat(syscallPolicy(writes, 1, goarch).Syscalls, sealPolicy(goarch).Syscalls) {
			names := slices.Clone(g.Names)
			for _, n := range g.NamesWithCondtions {
				names = append(names, n.Name)
			}
			for _, n := range names {
				if _, ok := info.SyscallNames[n]; !ok {
					t.Errorf("%s has no %s", goarch, n)
				}
			}
		}
	}
}

// A layer is proved by a refusal, and not by there being nothing.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name             string
		attempts         []attempt
		holds, succeeded bool
		detail           string
	}{
		{name: "nothing tried"},
		{name: "refused", attempts: []attempt{{"a", unix.EPERM}, {"b", unix.ENOENT}}, holds: true, detail: "a: operation not permitted; b: no such file or directory"},
		{name: "nothing there", attempts: []attempt{{"a", unix.ENOENT}, {"b", unix.EAFNOSUPPORT}}, detail: "a: no such file or directory; b: address family not supported by protocol"},
		{name: "one succeeds", attempts: []attempt{{"a", unix.EACCES}, {"b", nil}}, succeeded: true, detail: "b: it can"},
	} {
		holds, succeeded, detail := judge(c.attempts)
		if holds != c.holds || succeeded != c.succeeded || detail != c.detail {
			t.Errorf("%s: %v, %v, %q", c.name, holds, succeeded, detail)
		}
	}
	b := newBuilder(nil)
	b.add("up", func() (bool, string) { return true, "x" })
	b.add("down", func() (bool, string) { return false, "y" })
	b.revoke("up", "no")
	b.revoke("down", "no")
	if got := b.report.Layers; got[0] != (Layer{Name: "up", Detail: "no"}) || got[1] != (Layer{Name: "down", Detail: "y"}) {
		t.Errorf("%+v", got)
	}
}

// A policy that cannot be applied is an error, and so is a parent that is gone.
func TestErrors(t *testing.T) {
	uid := uint32(os.Geteuid())
	for want, change := range map[string]func(*job){
		ErrParentGone.Error():                           func(j *job) { j.Policy.Parent = os.Getpid() }, // the grandparent
		"a path to be read: stat /nowhere: no ":         func(j *job) { j.Policy.Read = []string{"/nowhere"} },
		"a folder to be written to: stat /nowhere: no ": func(j *job) { j.Policy.Write = []string{"/nowhere"} },
		"/etc/passwd is none":                           func(j *job) { j.Policy.Write = []string{"/etc/passwd"} },
	} {
		if strings.Contains(want, "/") && offers(t, uid).landlock == 0 {
			continue
		}
		if r := imprison(t, uid, "report", change); !strings.Contains(r.Error, want) {
			t.Errorf("error %q, want %q\n%s", r.Error, want, r.Stderr)
		}
	}
}
