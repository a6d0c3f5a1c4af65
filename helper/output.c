/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads the output of commands until nobody can write any more, and keeps the
 * last 64 KiB of each in a file.
 *
 * A command that starts a jail hands its descriptors to that jail's daemons,
 * which may hold them for months.  So this is a process of its own: it outlives
 * the daemon, and reads on whatever happens, for a writer must neither be
 * blocked nor killed.  What it reads is never looked at.
 *
 * stdin is a socket of type SEQPACKET.  The daemon sends a token of eight bytes,
 * with two descriptors: the pipe and the file.  The answer is the token and one
 * byte: TAKEN, or FULL where it could not be (the daemon still has the pipe),
 * and later ENDED.  Without the socket and without a pipe there is nothing to do.
 *
 * A token alone asks how far we are, and is answered FULL.  What was written to a
 * pipe before it was sent has been kept by then, as the pipes are read first.
 *
 * A jail that holds a command's output may write byte by byte for as long as it
 * likes.  So there is a limit to how often we read: what is written meanwhile is
 * read at once, and the writer has the pipe's 64 KiB.
 *
 * The file: eight bytes, little endian, how much was read in all; then a ring.
 */
#include <sys/types.h>
#include <sys/socket.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RING 65536
#define HEAD 8
#define TOKEN 8
#define MAX_PIPES 250 /* src/jaildaemon/daemon/output.py */
#define TAKEN 'T'
#define FULL 'F'
#define ENDED 'E'
#define SECOND 1000000000LL
#define PERIOD (SECOND / 1000) /* of a read, on average: 64 MB/s at most */
#define BURST (SECOND / 4)     /* reads at once when nothing was read for long: 250 */

struct output {
	unsigned char token[TOKEN];
	uint64_t total;
	int file;
};

static struct output outputs[MAX_PIPES];
static struct pollfd polled[1 + MAX_PIPES]; /* the socket, then the pipes */
static nfds_t pipes;
static unsigned char buf[RING];

static void
put(int file, const unsigned char *data, size_t len, off_t offset)
{
	/* A full disk loses output, never the reader. */
	while (len > 0) {
		ssize_t n = pwrite(file, data, len, offset);

		if (n <= 0)
			return;
		data += n;
		len -= (size_t)n;
		offset += n;
	}
}

static void
keep(struct output *o, size_t n)
{
	size_t at = (size_t)(o->total % RING);
	size_t first = n < RING - at ? n : RING - at;
	unsigned char head[HEAD];

	put(o->file, buf, first, (off_t)(HEAD + at));
	put(o->file, buf + first, n - first, HEAD);
	o->total += n;
	for (int i = 0; i < HEAD; i++)
		head[i] = (unsigned char)(o->total >> (8 * i));
	put(o->file, head, HEAD, 0);
}

/* A daemon that does not listen, or is no more, holds nobody up: it finds the
 * file by itself. */
static void
tell(const unsigned char *token, char what)
{
	unsigned char said[TOKEN + 1];

	if (polled[0].fd < 0)
		return;
	memcpy(said, token, TOKEN);
	said[TOKEN] = (unsigned char)what;
	(void)send(polled[0].fd, said, sizeof(said), MSG_DONTWAIT);
}

static void
take(void)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	unsigned char token[TOKEN + 1]; /* a longer one is none */
	struct iovec iov = { token, sizeof(token) };
	struct msghdr m;
	struct cmsghdr *c;
	int fds[2] = { -1, -1 };
	size_t got = 0;
	ssize_t n;

	memset(&m, 0, sizeof(m));
	m.msg_iov = &iov;
	m.msg_iovlen = 1;
	m.msg_control = &control;
	m.msg_controllen = sizeof(control);
	n = recvmsg(polled[0].fd, &m, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close(polled[0].fd);
		polled[0].fd = -1;
		return;
	}
	c = CMSG_FIRSTHDR(&m);
	if (c != NULL && c->cmsg_level == SOL_SOCKET &&
	    c->cmsg_type == SCM_RIGHTS) {
		got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), got * sizeof(int));
	}
	if (n == TOKEN && got == 2 && pipes < MAX_PIPES) {
		memset(&outputs[pipes], 0, sizeof(outputs[pipes]));
		memcpy(outputs[pipes].token, token, TOKEN);
		outputs[pipes].file = fds[1];
		pipes++;
		polled[pipes].fd = fds[0];
		polled[pipes].events = POLLIN;
		polled[pipes].revents = 0;
		tell(token, TAKEN);
		return;
	}
	/* No descriptor was left here for what came. */
	for (size_t i = 0; i < got; i++)
		close(fds[i]);
	if (n == TOKEN)
		tell(token, FULL);
}

static void
read_one(nfds_t i)
{
	ssize_t n = read(polled[1 + i].fd, buf, RING);

	if (n > 0) {
		keep(&outputs[i], (size_t)n);
		return;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	close(polled[1 + i].fd);
	close(outputs[i].file);
	tell(outputs[i].token, ENDED);
	pipes--;
	outputs[i] = outputs[pipes];
	polled[1 + i] = polled[1 + pipes];
}

/* Wait until what was read is not more than may be read by now. */
static void
pace(nfds_t reads)
{
	static long long due; /* when the next read would be on time */
	struct timespec t;
	long long now;

	if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
		return;
	now = t.tv_sec * SECOND + t.tv_nsec;
	if (due < now - BURST)
		due = now - BURST;
	due += (long long)reads * PERIOD;
	if (due <= now)
		return;
	t.tv_sec = (time_t)((due - now) / SECOND);
	t.tv_nsec = (long)((due - now) % SECOND);
	(void)nanosleep(&t, NULL);
}

int
main(void)
{
	for (int s = 1; s < 32; s++)
		signal(s, SIG_IGN);
	(void)setsid();
	if (chdir("/") != 0)
		return 1;
	polled[0].fd = STDIN_FILENO;
	polled[0].events = POLLIN;
	while (polled[0].fd >= 0 || pipes > 0) {
		nfds_t reads = 0;

		if (poll(polled, 1 + pipes, -1) < 0)
			continue;
		/* Backwards: what takes an ended one's place was looked at. */
		for (nfds_t i = pipes; i-- > 0;)
			if (polled[1 + i].revents != 0) {
				read_one(i);
				reads++;
			}
		if (polled[0].fd >= 0 && polled[0].revents != 0)
			take();
		pace(reads);
	}
	return 0;
}
