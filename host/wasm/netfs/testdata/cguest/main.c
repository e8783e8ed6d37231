// Cguest does what the lines of its standard input say and prints what came of each. A line is a letter, the number of a
// file or stream, and an argument; \n and \0 in it stand for themselves.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fds[64];
static FILE *streams[64];
static char line[1 << 16], buf[1 << 16];

static void unescape(char *s) {
	char *to = s;
	for (; *s; s++) {
		if (s[0] == '\\' && s[1] == 'n') {
			*to++ = '\n';
			s++;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

static void show(const char *text, size_t n) {
	putchar('"');
	for (size_t i = 0; i < n; i++) {
		if (text[i] == '\n')
			fputs("\\n", stdout);
		else
			putchar(text[i]);
	}
	fputs("\"\n", stdout);
}

static const char *name(int e) {
	switch (e) {
	case EACCES: return "EACCES";
	case EAGAIN: return "EAGAIN";
	case EBADF: return "EBADF";
	case EINVAL: return "EINVAL";
	case EIO: return "EIO";
	case ENOENT: return "ENOENT";
	case ENOTDIR: return "ENOTDIR";
	case EPERM: return "EPERM";
	}
	return strerror(e);
}

static void result(long n) {
	if (n < 0)
		puts(name(errno));
	else
		printf("%ld\n", n);
}

static void many(const char *path) {
	int n = 0, fd;
	while (n < 64 && (fd = open(path, O_RDWR)) >= 0)
		n++;
	printf("%d %s\n", n, name(errno));
}

static void whole(FILE *f) {
	size_t n = fread(buf, 1, sizeof buf, f);
	if (ferror(f))
		puts(name(errno));
	else
		show(buf, n);
}

int main(void) {
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		char *arg, op = line[0];
		int i = strtol(line + 1, &arg, 10) & 63;
		if (*arg == ' ')
			arg++;
		unescape(arg);
		long n;
		struct stat st;
		errno = 0;
		switch (op) {
		case 'o': // open
			fds[i] = open(arg, O_RDWR);
			result(fds[i] < 0 ? -1 : 0);
			break;
		case 'k': // open to read, or to create
			fds[i] = open(arg, i ? O_RDWR | O_CREAT | O_TRUNC : O_RDONLY, 0644);
			result(fds[i] < 0 ? -1 : 0);
			break;
		case 'w': // write
			result(write(fds[i], arg, strlen(arg)));
			break;
		case 'r': // read
			n = read(fds[i], buf, sizeof buf);
			if (n < 0)
				result(n);
			else
				show(buf, n);
			break;
		case 'c': // close
			result(close(fds[i]));
			break;
		case 's': // what is there?
			if (stat(arg, &st) < 0)
				result(-1);
			else
				puts(S_ISREG(st.st_mode) ? "file" : S_ISDIR(st.st_mode) ? "directory" : "other");
			break;
		case 'n': // do not block
			result(fcntl(fds[i], F_SETFL, O_NONBLOCK) < 0 ? 0 : 1);
			break;
		case 'm': // open until that fails
			many(arg);
			break;
		case 'F': // open to read and write, buffered
			streams[i] = fopen(arg, "r+");
			result(streams[i] ? 0 : -1);
			break;
		case 'D': // two streams of one descriptor: i writes, i+1 reads
			fds[i] = open(arg, O_RDWR);
			streams[i] = fdopen(fds[i], "w");
			streams[i + 1] = fdopen(fds[i], "r");
			result(streams[i] && streams[i + 1] ? 0 : -1);
			break;
		case 'W': // write, buffered
			result(fputs(arg, streams[i]) < 0 ? -1 : (long)strlen(arg));
			break;
		case 'U': // flush
			result(fflush(streams[i]));
			break;
		case 'G': // read a line
			if (fgets(buf, sizeof buf, streams[i]))
				show(buf, strlen(buf));
			else
				puts(ferror(streams[i]) ? name(errno) : "end");
			break;
		case 'A': // read all
			whole(streams[i]);
			break;
		case 'C': // close
			result(fclose(streams[i]));
			break;
		default:
			puts("what?");
		}
	}
	return 0;
}
