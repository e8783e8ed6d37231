//go:build !linux

package confine

import (
	"os"
	"runtime"
)

// CloseInherited does nothing on this system: Go hands on no descriptor that was not meant for the child.
func CloseInherited(...int) error { return nil }

// Parent gives ErrParentGone when the process that started this one is no longer the given one.
func Parent(pid int) error {
	if runtime.GOOS != "windows" && os.Getppid() != pid { // on Windows a process keeps the number of its dead parent
		return ErrParentGone
	}
	return nil
}

// Apply does what this system can: it looks at the environment and sets limits where there are any. The isolation is basic.
func Apply(p Policy) (Report, error) {
	if p.Parent != 0 {
		if err := Parent(p.Parent); err != nil {
			return Report{}, err
		}
	}
	b := newBuilder(p.Without)
	b.add(LayerProcess, func() (bool, string) { return ownProcess(os.Environ(), p.Env, nil) })
	b.add(LayerLimits, func() (bool, string) { return setLimits(p) })
	for _, name := range []string{
		LayerPrivileges, LayerNetwork, LayerLandlock, LayerSeccomp,
		LayerNoSockets, LayerNoFiles, LayerNoPrograms, LayerNoSignals,
	} {
		b.add(name, func() (bool, string) { return false, "not on " + runtime.GOOS })
	}
	return b.report, nil
}

// Seal takes nothing more on this system.
func Seal(p Policy, r Report) Report {
	b := resume(r, p.Without)
	b.add(LayerSealed, func() (bool, string) { return false, "not on " + runtime.GOOS })
	return b.report
}
