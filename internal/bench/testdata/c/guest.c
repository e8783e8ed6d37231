// The guest of the benchmark, and, built as a native program, what the fork and exec of the comparison starts: both read the
// request and answer with its length. A target "sleep" makes it take 200 ms, so that calls overlap.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void answer(void) {
	char request[4096], response[512];
	ssize_t n = 0, got;
	while (n < (ssize_t)sizeof request - 1 && (got = read(0, request + n, sizeof request - 1 - n)) > 0)
		n += got;
	request[n] = 0;
	if (strstr(request, "\"target\":\"sleep\""))
		usleep(200000);
	int k = snprintf(response, sizeof response,
		"{\"status\":\"up\",\"message\":\"read it\",\"metrics\":[{\"name\":\"bytes\",\"value\":%zd}]}", n);
	for (int at = 0; at < k && (got = write(1, response + at, k - at)) > 0;)
		at += got;
}

#ifdef __wasm__
__attribute__((export_name("check"))) void check(void) { answer(); }
#else
int main(void) {
	answer();
	return 0;
}
#endif
