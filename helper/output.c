/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads a command's output until nobody can write any more, and keeps its last
 * 64 KiB in a file:  stdin is the pipe, stdout the file.
 *
 * A command that starts a jail hands its descriptors to that jail's daemons,
 * which may hold them for months.  So this is a process of its own: it outlives
 * the daemon, and reads on whatever happens, for a writer must neither be
 * blocked nor killed.  What it reads is never looked at.
 *
 * The file: eight bytes, little endian, how much was read in all; then a ring.
 */
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

#define RING 65536
#define HEAD 8

static unsigned char buf[RING];

static void
put(const unsigned char *data, size_t len, off_t offset)
{
	/* A full disk loses output, never the reader. */
	while (len > 0) {
		ssize_t n = pwrite(STDOUT_FILENO, data, len, offset);

		if (n <= 0)
			return;
		data += n;
		len -= (size_t)n;
		offset += n;
	}
}

int
main(void)
{
	uint64_t total = 0;
	unsigned char head[HEAD];
	ssize_t n;

	for (int s = 1; s < 32; s++)
		signal(s, SIG_IGN);
	(void)setsid();
	if (chdir("/") != 0)
		return 1;
	while ((n = read(STDIN_FILENO, buf, RING)) > 0) {
		size_t at = (size_t)(total % RING);
		size_t first = (size_t)n < RING - at ? (size_t)n : RING - at;

		put(buf, first, (off_t)(HEAD + at));
		put(buf + first, (size_t)n - first, HEAD);
		total += (uint64_t)n;
		for (int i = 0; i < HEAD; i++)
			head[i] = (unsigned char)(total >> (8 * i));
		put(head, HEAD, 0);
	}
	return n == 0 ? 0 : 1;
}
