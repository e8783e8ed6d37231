//go:build wasip1

// Goguest does what the lines of its standard input say and prints what came of each, as the guest in C does, but for what
// is of C's library.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

func main() {}

var files [64]*os.File

//go:wasmexport check
func check() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		line := lines.Text()
		number, arg, _ := strings.Cut(line[1:], " ")
		i, _ := strconv.Atoi(number)
		fmt.Println(do(line[0], i, strings.ReplaceAll(arg, `\n`, "\n")))
	}
}

func do(op byte, i int, arg string) string {
	switch op {
	case 'o', 'k':
		flag := os.O_RDWR
		if op == 'k' {
			flag = os.O_RDONLY
			if i > 0 {
				flag = os.O_RDWR | os.O_CREATE | os.O_TRUNC
			}
		}
		f, err := os.OpenFile(arg, flag, 0o644)
		files[i] = f
		return result(0, err)
	case 'w':
		n, err := io.WriteString(files[i], arg)
		return result(n, err)
	case 'r':
		b := make([]byte, 1<<16)
		n, err := files[i].Read(b)
		if err != nil && !errors.Is(err, io.EOF) {
			return result(n, err)
		}
		return show(b[:n])
	case 'A':
		b, err := io.ReadAll(files[i])
		if err != nil {
			return result(0, err)
		}
		return show(b)
	case 'R':
		b, err := os.ReadFile(arg)
		if err != nil {
			return result(0, err)
		}
		return show(b)
	case 'c':
		return result(0, files[i].Close())
	case 's':
		st, err := os.Stat(arg)
		switch {
		case err != nil:
			return result(0, err)
		case st.Mode().IsRegular():
			return "file"
		case st.IsDir():
			return "directory"
		}
		return "other"
	case 'n':
		if syscall.SetNonblock(int(files[i].Fd()), true) != nil {
			return "0"
		}
		return "1"
	case 'm':
		for n := 0; ; n++ {
			if _, err := os.OpenFile(arg, os.O_RDWR, 0); err != nil {
				return fmt.Sprint(n, " ", result(0, err))
			}
		}
	}
	return "what?"
}

func show(b []byte) string { return `"` + strings.ReplaceAll(string(b), "\n", `\n`) + `"` }

func result(n int, err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return strconv.Itoa(n)
	case errors.Is(err, os.ErrClosed):
		return "EBADF"
	case !errors.As(err, &errno):
		return err.Error()
	}
	for _, e := range [...]struct {
		errno syscall.Errno
		name  string
	}{
		{syscall.EACCES, "EACCES"},
		{syscall.EAGAIN, "EAGAIN"},
		{syscall.EBADF, "EBADF"},
		{syscall.EINVAL, "EINVAL"},
		{syscall.EIO, "EIO"},
		{syscall.ENOENT, "ENOENT"},
		{syscall.ENOTDIR, "ENOTDIR"},
		{syscall.EPERM, "EPERM"},
	} {
		if errno == e.errno {
			return e.name
		}
	}
	return err.Error()
}
