/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The floor: what a C program needs at least for what jaildaemon does.
 *
 *   floor bell READER RING COMMAND
 *     Keeps one sleeping child and prints its pid.  When a signal kills it, runs
 *     COMMAND, waits for its end, and starts the next child.
 *   floor burst COUNT AT_ONCE READER RING COMMAND
 *     Runs COMMAND COUNT times, at most AT_ONCE at a time; prints the seconds.
 *   floor spawn COUNT AT_ONCE PROGRAM
 *     The same of a bare PROGRAM, without a shell and its surroundings.
 *
 * A COMMAND is run as the daemon runs it: by /bin/sh, in a session of its own,
 * with that environment, its output in a pipe, which is then given to READER
 * (helper/output.c, one process for all) with a file beside RING to keep it in.
 * With READER "-" its output goes to /dev/null.
 * The system calls are those of any such parent: posix_spawn, a pidfd in epoll or
 * an event in kqueue, waitpid of that very pid.  No policy, no log, no jail.
 */
#ifdef __linux__
#define _GNU_SOURCE
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#else
#include <sys/types.h>
#include <sys/event.h>
#include <sys/procctl.h>
#endif
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int queue = -1;

#ifdef __linux__
static void
watch(pid_t pid)
{
	struct epoll_event e = { .events = EPOLLIN };
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		err(1, "pidfd_open(%d)", (int)pid);
	e.data.u64 = (uint64_t)fd << 32 | (uint32_t)pid;
	if (epoll_ctl(queue, EPOLL_CTL_ADD, fd, &e) != 0)
		err(1, "epoll_ctl(%d)", fd);
}

static pid_t
next_end(void)
{
	struct epoll_event e;
	int fd;

	while (epoll_wait(queue, &e, 1, -1) != 1)
		if (errno != EINTR)
			err(1, "epoll_wait");
	fd = (int)(e.data.u64 >> 32);
	if (epoll_ctl(queue, EPOLL_CTL_DEL, fd, NULL) != 0)
		err(1, "epoll_ctl(%d)", fd);
	close(fd);
	return (pid_t)(uint32_t)e.data.u64;
}

static void
open_queue(void)
{
	queue = epoll_create1(EPOLL_CLOEXEC);
}

static void
end_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}
#else
static void
watch(pid_t pid)
{
	struct kevent e;

	EV_SET(&e, pid, EVFILT_PROC, EV_ADD | EV_ONESHOT, NOTE_EXIT, 0, NULL);
	if (kevent(queue, &e, 1, NULL, 0, NULL) != 0)
		err(1, "kevent(%d)", (int)pid);
}

static pid_t
next_end(void)
{
	struct kevent e;

	while (kevent(queue, NULL, 0, &e, 1, NULL) != 1)
		if (errno != EINTR)
			err(1, "kevent");
	return (pid_t)e.ident;
}

static void
open_queue(void)
{
	queue = kqueue();
	fcntl(queue, F_SETFD, FD_CLOEXEC);
}

static void
end_with_parent(void)
{
	int sig = SIGKILL;

	procctl(P_PID, 0, PROC_PDEATHSIG_CTL, &sig);
}
#endif

static pid_t
reap(int *status)
{
	pid_t pid = next_end();

	/* It has ended; FreeBSD says so an instant before it can be waited for. */
	if (waitpid(pid, status, 0) != pid)
		err(1, "waitpid(%d)", (int)pid);
	return pid;
}

/* Descriptors below 0 are not touched. */
static pid_t
start(const char *path, char **argv, char **env, int in, int out, int session)
{
	pid_t pid;
#ifdef POSIX_SPAWN_SETSID
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	if (in >= 0)
		posix_spawn_file_actions_adddup2(&actions, in, 0);
	if (out >= 0) {
		posix_spawn_file_actions_adddup2(&actions, out, 1);
		posix_spawn_file_actions_adddup2(&actions, out, 2);
	}
	if (session)
		posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
	errno = posix_spawn(&pid, path, &actions, &attributes, argv, env);
	if (errno != 0)
		err(1, "posix_spawn(%s)", path);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
#else
	/* FreeBSD's posix_spawn(3) makes no session, so neither can it be used. */
	pid = vfork();
	if (pid < 0)
		err(1, "vfork");
	if (pid == 0) {
		if (session)
			(void)setsid();
		if (in >= 0)
			dup2(in, 0);
		if (out >= 0) {
			dup2(out, 1);
			dup2(out, 2);
		}
		execve(path, argv, env);
		_exit(127);
	}
#endif
	return pid;
}

/* The one reader: a socket on which it is given pipes and files. */
static int reader_fd = -1;

static void
start_reader(const char *reader)
{
	char *argv[] = { "jailoutput", NULL }, *none[] = { NULL };
	int fds[2];

	if (strcmp(reader, "-") == 0)
		return;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0)
		err(1, "socketpair");
	start(reader, argv, none, fds[1], -1, 0);
	close(fds[1]);
	reader_fd = fds[0];
}

static void
give_to_reader(int output, int file, uint64_t token)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	int fds[2] = { output, file };
	struct iovec iov = { &token, sizeof(token) };
	struct msghdr m;
	struct cmsghdr *c;

	memset(&control, 0, sizeof(control));
	memset(&m, 0, sizeof(m));
	m.msg_iov = &iov;
	m.msg_iovlen = 1;
	m.msg_control = &control;
	m.msg_controllen = sizeof(control);
	c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	if (sendmsg(reader_fd, &m, 0) != (ssize_t)sizeof(token))
		err(1, "sendmsg");
}

/* What the reader says, taken and ended, is heard as the daemon hears it. */
static void
hear_reader(void)
{
	char said[16];

	while (reader_fd >= 0 &&
	    recv(reader_fd, said, sizeof(said), MSG_DONTWAIT) > 0)
		continue;
}

static pid_t
run(const char *command, const char *ring, int n)
{
	static char rule[64], number[64], path[1024];
	char *env[] = { "PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:"
		"/usr/local/bin", "HOME=/root", "LANG=C.UTF-8",
		"JAILDAEMON_JID=1000", "JAILDAEMON_JAIL=1000",
		"JAILDAEMON_TITLE=BENCH", rule, number, NULL };
	char *shell[] = { "/bin/sh", "-c", (char *)(uintptr_t)command, NULL };
	int pipe_fds[2] = { -1, -1 }, null, file;
	pid_t pid;

	snprintf(rule, sizeof(rule), "JAILDAEMON_RULE=t%d", n);
	snprintf(number, sizeof(number), "JAILDAEMON_RUN=1926f3c9c1a-%d-%d",
	    (int)getpid(), n);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		err(1, "open(/dev/null)");
	if (reader_fd >= 0 && pipe2(pipe_fds, O_CLOEXEC) != 0)
		err(1, "pipe2");
	pid = start(shell[0], shell, env, null,
	    reader_fd >= 0 ? pipe_fds[1] : null, 1);
	watch(pid);
	close(null);
	if (reader_fd < 0)
		return pid;
	close(pipe_fds[1]);
	snprintf(path, sizeof(path), "%s.%d", ring, (int)pid);
	file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (file < 0)
		err(1, "open(%s)", path);
	give_to_reader(pipe_fds[0], file, (uint64_t)n);
	close(file);
	close(pipe_fds[0]);
	unlink(path);
	return pid;
}

static pid_t
sleeper(void)
{
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		end_with_parent();
		for (;;)
			pause();
	}
	watch(pid);
	return pid;
}

static void
bell(const char *ring, const char *command)
{
	int status;

	for (int n = 1;; n++) {
		printf("%d\n", (int)sleeper());
		fflush(stdout);
		(void)reap(&status);
		if (!WIFSIGNALED(status))
			errx(1, "the child ended by itself");
		run(command, ring, n);
		(void)reap(&status);
		hear_reader();
	}
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* `argv`: COUNT AT_ONCE PROGRAM, or COUNT AT_ONCE READER RING COMMAND. */
static void
many(char **argv, int shell)
{
	char *program[] = { argv[2], "floor", NULL }, *none[] = { NULL };
	int count = atoi(argv[0]), at_once = atoi(argv[1]);
	int started = 0, running = 0, status;
	double began = now();

	while (started < count || running > 0) {
		for (; started < count && running < at_once; running++) {
			started++;
			if (shell)
				run(argv[4], argv[3], started);
			else
				watch(start(argv[2], program, none, -1, -1, 0));
		}
		(void)reap(&status);
		running--;
		hear_reader();
	}
	printf("%.6f\n", now() - began);
}

int
main(int argc, char **argv)
{
	/* Started by nohup(1) it would have children that do not die of it. */
	signal(SIGHUP, SIG_DFL);
	umask(022);
	if (chdir("/") != 0)
		err(1, "chdir(/)");
	open_queue();
	if (queue < 0)
		err(1, "no event queue");
	if (argc == 5 && strcmp(argv[1], "bell") == 0) {
		start_reader(argv[2]);
		bell(argv[3], argv[4]);
	} else if (argc == 7 && strcmp(argv[1], "burst") == 0) {
		start_reader(argv[4]);
		many(argv + 2, 1);
	} else if (argc == 5 && strcmp(argv[1], "spawn") == 0)
		many(argv + 2, 0);
	else
		errx(2, "usage: floor bell|burst|spawn ...");
	return 0;
}
