package confine

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// The rights to files. None is to execute, to make devices, sockets or links, or to move between folders.
const (
	readFile   = ll.AccessFSReadFile
	readFolder = readFile | ll.AccessFSReadDir
	writeAll   = readFolder | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSMakeDir |
		ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
)

// landlockGains names what each version of the kernel's interface added to what can be refused, from version 1 on.
var landlockGains = [...]string{"files", "", "truncation", "TCP", "device controls", "signals and abstract sockets", "", "", "Unix sockets", "UDP"}

// landlockCovers says what a version of the kernel's interface can refuse.
func landlockCovers(abi int) string {
	covers := ""
	for _, gain := range landlockGains[:min(abi, len(landlockGains))] {
		if gain != "" {
			covers += ", " + gain
		}
	}
	return fmt.Sprintf("version %d of it refuses%s", abi, covers[1:])
}

// restrictFiles leaves the process the files that the policy names and, as far as this kernel can, no TCP, no UDP, no signals
// and no Unix sockets outside. An error is the policy's fault: a path that is not there.
func restrictFiles(p Policy) (holds bool, detail string, err error) {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return false, fmt.Sprintf("not in this kernel: %v", err), nil
	}
	var rules []landlock.Rule
	for _, path := range p.Read {
		info, err := os.Stat(path)
		if err != nil {
			return false, "", fmt.Errorf("a path to be read: %w", err)
		}
		rights := landlock.AccessFSSet(readFile)
		if info.IsDir() {
			rights = readFolder
		}
		rules = append(rules, landlock.PathAccess(rights, path))
	}
	for _, path := range p.Write {
		if info, err := os.Stat(path); err != nil {
			return false, "", fmt.Errorf("a folder to be written to: %w", err)
		} else if !info.IsDir() {
			return false, "", fmt.Errorf("a folder to be written to: %s is none", path)
		}
		rules = append(rules, landlock.PathAccess(writeAll, path))
	}
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return false, err.Error(), nil //nolint:nilerr // it is told: what the system does not do is no error of the policy
	}
	return true, landlockCovers(abi), nil
}
