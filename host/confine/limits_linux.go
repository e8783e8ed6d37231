package confine

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// room is how many bytes of writable data a process must be able to take beyond what it has when it is confined.
const room = 16 << 20

// threads bounds the threads where they can be counted for this process alone.
const threads = 512

// setLimits bounds what the process can take. Limits belong to the process, so they hold for all of its threads.
func setLimits(p Policy) (holds bool, detail string) {
	if p.Memory == 0 {
		return false, "the policy sets no limit on memory"
	}
	if used, err := dataSize(); err != nil {
		return false, err.Error()
	} else if p.Memory < used+room {
		return false, fmt.Sprintf("a limit of %d MiB leaves no room: the process has %d MiB of data", p.Memory>>20, used>>20)
	}
	limits := []limit{
		{"core dumps", unix.RLIMIT_CORE, 0},
		{"locked memory", unix.RLIMIT_MEMLOCK, 0},
		{"message queues", unix.RLIMIT_MSGQUEUE, 0},
		{"priority", unix.RLIMIT_NICE, 0},
		{"real-time priority", unix.RLIMIT_RTPRIO, 0},
		{"the stack", unix.RLIMIT_STACK, 8 << 20},
		{"descriptors", unix.RLIMIT_NOFILE, p.files()},
		{"sizes of files", unix.RLIMIT_FSIZE, p.fileSize()},
		{"memory", unix.RLIMIT_DATA, p.Memory},
	}
	detail = fmt.Sprintf("%d MiB of data, files of %d MiB, %d descriptors, no core dumps", p.Memory>>20, p.fileSize()>>20, p.files())
	if countsThreadsAlone() {
		limits = append(limits, limit{"threads", unix.RLIMIT_NPROC, threads})
		detail += fmt.Sprintf(", %d threads", threads)
	}
	for _, l := range limits {
		if err := l.set(); err != nil {
			return false, fmt.Sprintf("limit %s: %v", l.what, err)
		}
	}
	// When the machine runs out of memory this process is to end, and not its parent. Where that cannot be said, the limits hold.
	if os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) == nil { //nolint:gosec // the file is there, so there is no mode
		detail += ", the first to end when memory is short"
	}
	return true, detail
}

type limit struct {
	what  string
	which int
	most  uint64
}

// set lowers the limit, for good, and never raises it.
func (l limit) set() error {
	var now unix.Rlimit
	if err := unix.Prlimit(0, l.which, nil, &now); err != nil {
		return err
	}
	now.Max = min(now.Max, l.most)
	now.Cur = min(now.Cur, now.Max)
	if l.which == unix.RLIMIT_NOFILE || l.which == unix.RLIMIT_DATA || l.which == unix.RLIMIT_FSIZE {
		now.Cur = now.Max
	}
	return unix.Prlimit(0, l.which, &now, nil)
}

// dataSize gives the bytes that RLIMIT_DATA counts for this process.
func dataSize() (uint64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("how much data the process has: %w", err)
	}
	_, after, _ := strings.Cut(string(status), "VmData:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0, fmt.Errorf("how much data the process has: no VmData in /proc/self/status")
	}
	kib, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("how much data the process has: %w", err)
	}
	return kib << 10, nil
}

// countsThreadsAlone reports whether RLIMIT_NPROC would count this process alone. It counts all threads of a user, so a limit
// that bounds one process would stop its neighbours, or be used up by them; but since Linux 5.14 it counts those of each user
// namespace apart, and Probe may have given the process one, in which there is a single user. Root is never limited.
func countsThreadsAlone() bool {
	users, err := os.ReadFile("/proc/self/uid_map") // inside, outside, how many
	if f := strings.Fields(string(users)); err != nil || len(f) != 3 || f[2] != "1" {
		return false
	}
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	major, rest, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	return errA == nil && errB == nil && (a > 5 || a == 5 && b >= 14)
}
