// A Tocsin plugin in C without any SDK: it asks an NTP server for the time and says how far this machine's clock is from it.
//
// It is all that the contract asks for: the request is JSON on standard input, the answer is JSON on standard output, and the
// network is files below /net. The protocol is SNTP, version 4 (RFC 5905, section 14; the packet is in section 7.3).

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PACKET 48
#define DEFAULT_PORT "123"
#define DEFAULT_MAX_OFFSET_MS 1000
#define MAX_IGNORED 16         // datagrams that are no answer to this question
#define EPOCH 2208988800u      // seconds from 1900, where NTP counts from, to 1970
#define UNSYNCHRONISED 3       // the leap indicator of a server that does not know the time
#define MAX_STRATUM 15

// --- the answer -----------------------------------------------------------------------------------------------------

// The answer is gathered here, and what does not fit is left out: text is cut long before.
static struct {
	char bytes[8192];
	size_t length;
} out;

static void put_bytes(const char *text, size_t length) {
	if (length > sizeof out.bytes - out.length)
		length = sizeof out.bytes - out.length;
	memcpy(out.bytes + out.length, text, length);
	out.length += length;
}

static void put(const char *text) { put_bytes(text, strlen(text)); }

static void put_whole(uint64_t n) {
	char digits[20];
	size_t at = sizeof digits;
	do
		digits[--at] = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	put_bytes(digits + at, sizeof digits - at);
}

// put_seconds writes microseconds as a number of seconds.
static void put_seconds(int64_t us) {
	uint64_t n = us < 0 ? -(uint64_t)us : (uint64_t)us;
	char fraction[7] = ".";
	uint64_t rest = n % 1000000;
	for (int i = 6; i > 0; i--, rest /= 10)
		fraction[i] = (char)('0' + rest % 10);
	if (us < 0)
		put("-");
	put_whole(n / 1000000);
	put_bytes(fraction, sizeof fraction);
}

// put_escaped writes text as the inside of a JSON string.
static void put_escaped(const char *text) {
	for (; *text != 0; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\') {
			put("\\");
			put_bytes(text, 1);
		} else if (c < 0x20) {
			put(" ");
		} else {
			put_bytes(text, 1);
		}
	}
}

static void finish(void) {
	for (size_t sent = 0; sent < out.length;) {
		ssize_t n = write(STDOUT_FILENO, out.bytes + sent, out.length - sent);
		if (n <= 0)
			return; // the runner finds an answer that is cut
		sent += (size_t)n;
	}
}

// answer ends the call with a status and a message made of three parts.
static void answer(const char *status, const char *one, const char *two, const char *three) {
	put("{\"status\":\"");
	put(status);
	put("\",\"message\":\"");
	put_escaped(one);
	put_escaped(two);
	put_escaped(three);
	put("\"}\n");
	finish();
}

// --- the request ----------------------------------------------------------------------------------------------------

// Just enough of JSON (RFC 8259) to find a member of an object. Every function takes the end of the text and looks no
// further; NULL is what is no JSON, or is not there.

static const char *skip_space(const char *p, const char *end) {
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

// skip_string returns what is behind a string that begins at p.
static const char *skip_string(const char *p, const char *end) {
	if (p >= end || *p != '"')
		return NULL;
	for (p++; p < end; p++) {
		if (*p == '"')
			return p + 1;
		if (*p == '\\')
			p++;
	}
	return NULL;
}

// skip_value returns what is behind a value that begins at p. It counts brackets and does not recurse.
static const char *skip_value(const char *p, const char *end) {
	size_t depth = 0;
	do {
		p = skip_space(p, end);
		if (p >= end)
			return NULL;
		switch (*p) {
		case '"':
			p = skip_string(p, end);
			if (p == NULL)
				return NULL;
			break;
		case '{':
		case '[':
			depth++;
			p++;
			break;
		case '}':
		case ']':
			if (depth == 0)
				return NULL;
			depth--;
			p++;
			break;
		case ',':
		case ':':
			if (depth == 0)
				return NULL;
			p++;
			break;
		default: { // a number, true, false or null
			const char *first = p;
			while (p < end && *p != 0 && strchr(" \t\r\n,:{}[]\"", *p) == NULL)
				p++;
			if (p == first)
				return NULL;
		}
		}
	} while (depth > 0);
	return p;
}

static int hex4(const char *p) {
	int n = 0;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (digit < 0)
			return -1;
		n = n * 16 + digit;
	}
	return n;
}

static size_t utf8(uint32_t c, char *to) {
	if (c < 0x80) {
		to[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		to[0] = (char)(0xc0 | c >> 6);
		to[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		to[0] = (char)(0xe0 | c >> 12);
		to[1] = (char)(0x80 | (c >> 6 & 0x3f));
		to[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	to[0] = (char)(0xf0 | c >> 18);
	to[1] = (char)(0x80 | (c >> 12 & 0x3f));
	to[2] = (char)(0x80 | (c >> 6 & 0x3f));
	to[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

// read_string reads the string at p, without escapes, into a text of at most size bytes with its final NUL. It is false for
// what is no string, is too long, or has a NUL in it.
static bool read_string(const char *p, const char *end, char *to, size_t size) {
	const char *behind = skip_string(p, end);
	size_t n = 0;
	if (behind == NULL)
		return false;
	end = behind - 1; // the closing quote
	for (p++; p < end; p++) {
		char bytes[4] = {*p};
		size_t count = 1;
		if (*p == '\\') {
			if (++p >= end)
				return false;
			switch (*p) {
			case '"':
			case '\\':
			case '/':
				bytes[0] = *p;
				break;
			case 'b':
				bytes[0] = '\b';
				break;
			case 'f':
				bytes[0] = '\f';
				break;
			case 'n':
				bytes[0] = '\n';
				break;
			case 'r':
				bytes[0] = '\r';
				break;
			case 't':
				bytes[0] = '\t';
				break;
			case 'u': {
				int c = end - p > 4 ? hex4(p + 1) : -1;
				if (c < 0)
					return false;
				p += 4;
				if (c >= 0xd800 && c < 0xdc00 && end - p > 6 && p[1] == '\\' && p[2] == 'u') {
					int low = hex4(p + 3);
					if (low >= 0xdc00 && low < 0xe000) {
						c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
						p += 6;
					}
				}
				if (c >= 0xd800 && c < 0xe000)
					c = 0xfffd; // half of a character
				count = utf8((uint32_t)c, bytes);
				break;
			}
			default:
				return false;
			}
		}
		if (bytes[0] == 0 || n + count >= size)
			return false;
		memcpy(to + n, bytes, count);
		n += count;
	}
	to[n] = 0;
	return true;
}

// member returns where the value of a member of the object at p begins.
static const char *member(const char *p, const char *end, const char *name) {
	char key[64];
	if (p == NULL)
		return NULL;
	p = skip_space(p, end);
	if (p >= end || *p != '{')
		return NULL;
	for (p = skip_space(p + 1, end); p < end && *p == '"'; p = skip_space(p + 1, end)) {
		bool found = read_string(p, end, key, sizeof key) && strcmp(key, name) == 0;
		p = skip_string(p, end);
		if (p == NULL)
			return NULL;
		p = skip_space(p, end);
		if (p >= end || *p != ':')
			return NULL;
		p = skip_space(p + 1, end);
		if (found)
			return p < end ? p : NULL;
		p = skip_value(p, end);
		if (p == NULL)
			return NULL;
		p = skip_space(p, end);
		if (p >= end || *p != ',')
			return NULL;
	}
	return NULL;
}

// read_whole reads a number without sign, fraction and exponent. It is false for any other value.
static bool read_whole(const char *p, const char *end, uint32_t *to) {
	uint32_t n = 0;
	const char *first = p;
	for (; p < end && *p >= '0' && *p <= '9'; p++) {
		if (n > 100000000)
			return false;
		n = n * 10 + (uint32_t)(*p - '0');
	}
	*to = n;
	return p > first && p < end && *p != 0 && strchr(" \t\r\n,}", *p) != NULL;
}

// read_all reads a descriptor until its end. It returns -1 when there is more than fits, or it cannot be read.
static ssize_t read_all(int fd, char *to, size_t size) {
	size_t n = 0;
	while (n < size) {
		ssize_t got = read(fd, to + n, size - n);
		if (got < 0)
			return -1;
		if (got == 0)
			return (ssize_t)n;
		n += (size_t)got;
	}
	return -1;
}

// --- the network ----------------------------------------------------------------------------------------------------

// fail answers for an operation that failed. What is the server's fault is down, and everything else unknown: nobody is to
// be woken because a name server is slow or a permission is missing.
static void fail(const char *target, bool opened, unsigned ignored) {
	static char why[4096];
	char kind[32] = "", message[512] = "the network failed, and does not say why";
	int fd = open("/net/error", O_RDONLY);
	if (fd >= 0) {
		ssize_t n = read_all(fd, why, sizeof why);
		close(fd);
		if (n > 0) {
			const char *end = why + n, *value = member(why, end, "kind");
			if (value == NULL || !read_string(value, end, kind, sizeof kind))
				kind[0] = 0;
			value = member(why, end, "message");
			if (value != NULL && !read_string(value, end, message, sizeof message))
				strcpy(message, "the network failed with a message that cannot be read");
		}
	}
	if (strcmp(kind, "timeout") == 0 && opened) {
		answer("down", ignored > 0 ? "what answered in time did not answer this question: " : "no answer in time from ", target, "");
		return;
	}
	bool theirs = opened ? strcmp(kind, "refused") == 0 || strcmp(kind, "closed") == 0
	                     : strcmp(kind, "dns") == 0 && strstr(message, "no such host") != NULL;
	answer(theirs ? "down" : "unknown", message, "", "");
}

// make_path writes the path of a datagram socket to a target: HOST, HOST:PORT, an IPv6 address, or one in brackets with a
// port. It is false for a target that is too long or none of these.
static bool make_path(const char *target, char *to, size_t size) {
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_~:[],";
	static const char hex[] = "0123456789ABCDEF";
	static const char begin[] = "/net/udp/";
	const char *colon = strchr(target, ':'), *bracket = strchr(target, ']');
	bool bare6 = target[0] != '[' && colon != NULL && strchr(colon + 1, ':') != NULL;
	bool port = target[0] == '[' ? bracket != NULL && bracket[1] != 0 : colon != NULL && !bare6;
	size_t n = sizeof begin - 1;
	if (target[0] == 0)
		return false;
	memcpy(to, begin, n);
	if (bare6)
		to[n++] = '[';
	for (const char *p = target; *p != 0; p++) {
		if (n + 16 > size)
			return false;
		if (strchr(plain, *p) != NULL) {
			to[n++] = *p;
			continue;
		}
		to[n++] = '%';
		to[n++] = hex[(unsigned char)*p >> 4];
		to[n++] = hex[(unsigned char)*p & 15];
	}
	if (bare6)
		to[n++] = ']';
	strcpy(to + n, port ? "" : ":" DEFAULT_PORT);
	return true;
}

// --- NTP ------------------------------------------------------------------------------------------------------------

// A timestamp is seconds since 1900 in its upper half, which wraps around in 2036, and their fraction in its lower one. What
// is between two of them is right across the wrap as long as they are less than 68 years apart.

static bool now(uint64_t *to) {
	struct timespec t;
	if (clock_gettime(CLOCK_REALTIME, &t) != 0)
		return false;
	*to = (uint64_t)(uint32_t)((uint64_t)t.tv_sec + EPOCH) << 32 | ((uint64_t)t.tv_nsec << 32) / 1000000000;
	return true;
}

static uint64_t timestamp(const unsigned char *p) {
	uint64_t n = 0;
	for (int i = 0; i < 8; i++)
		n = n << 8 | p[i];
	return n;
}

// microseconds converts what is between two timestamps.
static int64_t microseconds(int64_t between) {
	return (between >> 32) * 1000000 + (int64_t)(((uint64_t)between & 0xffffffff) * 1000000 >> 32);
}

// reference writes who a server of stratum 1 has the time from, or why one of stratum 0 gives none: four characters.
static void reference(const unsigned char *packet, char *to) {
	int n = 0;
	for (int i = 12; i < 16 && packet[i] > ' ' && packet[i] < 0x7f; i++)
		to[n++] = (char)packet[i];
	to[n] = 0;
}

// kiss answers for a server that gives no time, and says why in a code (RFC 5905, section 7.4).
static void kiss(const char *code) {
	if (strcmp(code, "RATE") == 0)
		answer("unknown", "the server wants to be asked less often (kiss-o'-death RATE); lengthen the interval", "", "");
	else if (strcmp(code, "DENY") == 0 || strcmp(code, "RSTR") == 0)
		answer("down", "the server refuses to serve this machine (kiss-o'-death ", code, ")");
	else if (code[0] != 0)
		answer("down", "the server gives no time (kiss-o'-death ", code, ")");
	else
		answer("down", "the server gives no time (stratum 0)", "", "");
}

// judge answers for a packet that answers this question. It came at t4, and the question left at t1.
static void judge(const unsigned char *packet, uint64_t t1, uint64_t t4, uint32_t max_offset_ms) {
	unsigned stratum = packet[1];
	uint64_t t2 = timestamp(packet + 32), t3 = timestamp(packet + 40);
	char code[5];
	reference(packet, code);
	if (stratum == 0) {
		kiss(code);
		return;
	}
	if (packet[0] >> 6 == UNSYNCHRONISED || stratum > MAX_STRATUM) {
		answer("down", "the server's clock is not synchronised", "", "");
		return;
	}
	if (t2 == 0 || t3 == 0) {
		answer("down", "the server's answer has no time in it", "", "");
		return;
	}
	int64_t offset = microseconds((int64_t)(t2 - t1) / 2 + (int64_t)(t3 - t4) / 2);
	int64_t trip = microseconds((int64_t)(t4 - t1)), delay = trip - microseconds((int64_t)(t3 - t2));
	if (trip < 0) // the clock was set back meanwhile
		trip = 0;
	if (delay < 0)
		delay = 0;
	put("{\"status\":\"up\",\"message\":\"stratum ");
	put_whole(stratum);
	if (stratum == 1 && code[0] != 0) {
		put(" (");
		put_escaped(code);
		put(")");
	}
	put("\",\"latency_us\":");
	put_whole((uint64_t)trip);
	put(",\"metrics\":[{\"name\":\"offset_seconds\",\"unit\":\"s\",\"value\":");
	put_seconds(offset);
	put(",\"warn\":\"-");
	put_seconds((int64_t)max_offset_ms * 1000);
	put(":");
	put_seconds((int64_t)max_offset_ms * 1000);
	put("\"},{\"name\":\"delay_seconds\",\"unit\":\"s\",\"value\":");
	put_seconds(delay);
	put("},{\"name\":\"stratum\",\"unit\":\"1\",\"value\":");
	put_whole(stratum);
	put("}]}\n");
	finish();
}

// ask sends one question and waits for its answer until the call's time is over.
static void ask(int fd, const char *target, uint32_t max_offset_ms) {
	// The server sends the transmit timestamp back as it is. A random one shows that an answer is to this question, and tells
	// the server nothing about this machine's clock; the true time stays here.
	unsigned char question[PACKET] = {0x23}; // version 4, mode 3: a client
	unsigned char packet[1024];
	uint64_t t1, t4;
	if (getentropy(question + 40, 8) != 0 || !now(&t1)) {
		answer("unknown", "this machine gives no time or no random numbers", "", "");
		return;
	}
	if (write(fd, question, sizeof question) != (ssize_t)sizeof question) {
		fail(target, true, 0);
		return;
	}
	for (unsigned ignored = 0; ignored < MAX_IGNORED; ignored++) {
		ssize_t n = read(fd, packet, sizeof packet);
		if (n < 0 || !now(&t4)) {
			fail(target, true, ignored);
			return;
		}
		// Version and mode, and the timestamp that only who got the question knows.
		if (n >= PACKET && (packet[0] & 7) == 4 && (packet[0] >> 3 & 7) >= 1 && memcmp(packet + 24, question + 40, 8) == 0) {
			judge(packet, t1, t4, max_offset_ms);
			return;
		}
	}
	answer("down", "what answered did not answer this question: ", target, "");
}

__attribute__((export_name("check"))) void check(void) {
	static char request[256 << 10];
	char target[512], path[1024];
	uint32_t max_offset_ms = DEFAULT_MAX_OFFSET_MS;
	ssize_t length = read_all(STDIN_FILENO, request, sizeof request);
	if (length < 0) {
		answer("unknown", "the request cannot be read or is longer than 256 KiB", "", "");
		return;
	}
	const char *end = request + length, *value = member(request, end, "target");
	if (value == NULL || !read_string(value, end, target, sizeof target) || !make_path(target, path, sizeof path)) {
		answer("unknown", "the target must be HOST or HOST:PORT, at most 500 bytes", "", "");
		return;
	}
	value = member(member(request, end, "config"), end, "max_offset_ms");
	if (value != NULL && !read_whole(value, end, &max_offset_ms)) {
		answer("unknown", "max_offset_ms must be a whole number of milliseconds", "", "");
		return;
	}
	int fd = open(path, O_RDWR);
	if (fd < 0) {
		fail(target, false, 0);
		return;
	}
	ask(fd, target, max_offset_ms);
	close(fd);
}
