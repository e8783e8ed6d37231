package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const unixSockets = true

// maxSocketDir is how long the name of the folder of sockets may be, so that the name of a socket in it fits into sun_path
// of unix(7).
const maxSocketDir = 107 - len("/plugin-dir4294967295/plugin4294967295")

// ownGroup puts a process into a group of its own, and ends it when the thread that started it ends.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// mainThread reports whether the calling thread is the first one of the process.
func mainThread() bool { return unix.Gettid() == os.Getpid() }

func killGroup(p *os.Process) {
	// It can only fail when nothing of the group is left.
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
}

// reap waits until the process has ended, calls ended while its number, and with it that of its group, still belongs to it,
// and then reaps it.
func reap(cmd *exec.Cmd, ended func()) error {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break // an error, such as of a process that somebody else reaped, cmd.Wait reports
		}
	}
	ended()
	return cmd.Wait()
}

// userHZ is the unit of times in /proc: sysconf(_SC_CLK_TCK) is 100 wherever Go runs on Linux.
const userHZ = 100

// cpuOf reads the processor time of a living process and of those of its children that it waited for; see proc_pid_stat(5).
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	text := string(data)
	// The name of the program stands in brackets and may hold anything, brackets too.
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const utime, stime, cutime, cstime = 11, 12, 13, 14 // counted from the state, the third field
	if len(fields) <= cstime {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, i := range [...]int{utime, stime, cutime, cstime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / userHZ), nil
}

// memoryOf reads the resident memory of a living process that is its own; see proc_pid_statm(5).
func memoryOf(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0, err
	}
	var size, resident, shared uint64
	if _, err := fmt.Sscan(string(data), &size, &resident, &shared); err != nil {
		return 0, fmt.Errorf("/proc/%d/statm: %w", pid, err)
	}
	return (resident - min(shared, resident)) * uint64(os.Getpagesize()), nil
}
