package confine

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Parent makes the end of the process that started this one the end of this one too, and gives ErrParentGone when it has
// ended already: the signal that Prepare asked for is only sent for a parent that ends later.
func Parent(pid int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("end with the parent: %w", err)
	}
	if os.Getppid() != pid {
		return ErrParentGone
	}
	return nil
}

// Apply takes from the process what the policy does not leave it, on all of its threads and for good, and then tries from
// inside whether it is gone. Layers that this system does not have are reported and are no error: the caller looks at
// Report.Missing. An error means that the policy cannot be applied: the parent is gone, or a path is not there.
//
// It takes one to two milliseconds, and a few more as root, whose capabilities are dropped one by one on every thread. It is
// called once, by one goroutine, while others may run.
func Apply(p Policy) (Report, error) {
	if p.Parent != 0 {
		if err := Parent(p.Parent); err != nil {
			return Report{}, err
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	parent := os.Getppid()
	b := newBuilder(p.Without)
	b.add(LayerProcess, func() (bool, string) { return ownProcess(os.Environ(), p.Env, CloseInherited(p.Keep...)) })
	b.add(LayerNetwork, emptyNetwork)
	b.add(LayerLimits, func() (bool, string) { return setLimits(p) })
	var failed error
	threads := func(name string, up func() (bool, string)) {
		if cgo() {
			up = func() (bool, string) { return false, cgoDetail }
		}
		b.add(name, up)
	}
	threads(LayerPrivileges, dropPrivileges)
	threads(LayerLandlock, func() (holds bool, detail string) {
		holds, detail, failed = restrictFiles(p)
		return holds, detail
	})
	if failed != nil {
		return b.report, failed
	}
	threads(LayerSeccomp, func() (bool, string) { return filterSyscalls(p) })
	prove(b, parent)
	return b.report, nil
}

// Seal takes from a process what it needed only to load its code. Call it behind Apply, with the same policy and the report of
// Apply, when the code is loaded and none of a stranger's has run. From then on the process opens and looks at no file at all,
// those of the policy included, and makes no memory executable. It gives the report with what it found: a system without
// seccomp has no seal, which is no error.
func Seal(p Policy, r Report) Report {
	b := resume(r, p.Without)
	parent := os.Getppid()
	b.add(LayerSealed, func() (bool, string) {
		if !r.Holds(LayerSeccomp) {
			return false, "it needs " + LayerSeccomp
		}
		if err := install(sealPolicy(runtime.GOARCH)); err != nil {
			return false, err.Error()
		}
		holds, _, detail := judge(sealed(p, parent))
		return holds, detail
	})
	b.again(LayerNoFiles, func() (bool, string) {
		holds, _, detail := judge(noFiles(parent))
		return holds, detail
	})
	return b.report
}
