/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The inode that a probe runs from, reached through /proc/PID/exe: what is done
 * to it while the probe lives, and what is kept of it after the probe's death.
 */
#include "attacker.h"

#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/inotify.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NOBODYS 4294967294U

static void
change(const char *path, mode_t mode)
{
	static const char *const names[] = { "user.x", "trusted.x",
		"security.x" };
	struct timespec then[2] = { { 1, 0 }, { 1, 0 } };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		try_it(names[i], setxattr(path, names[i], "x", 1, 0));
	try_it("times", utimensat(AT_FDCWD, path, then, 0));
	try_it("chown", chown(path, 0, 0));
	try_it("chmod", chmod(path, mode));
}

/* A lease is its owner's; who has every capability in a namespace becomes that. */
static void
lease(const char *path, int kind)
{
	int fd = open(path, O_RDONLY), won = 0, error;

	for (int tries = 0; tries < 2 && fd >= 0 && !won; tries++) {
		if (tries == 1)
			setfsuid(NOBODYS);
		do {
			won = try_it("lease", fcntl(fd, F_SETLEASE, kind));
			error = errno;
			/* The kernel may still be at the last execution. */
			sched_yield();
		} while (!won && error == EAGAIN && !counts->stop);
	}
}

static void
keep_open(const char *path)
{
	int fd;

	do
		fd = open(path, O_RDWR);
	while (fd < 0 && errno == ETXTBSY);
	try_it("write", fd < 0 ? -1 : write(fd, "evil", 4));
	try_it("truncate", fd < 0 ? -1 : ftruncate(fd, 0));
	if (fd >= 0)
		try_it("open", 0);
}

/* `seen` counts the steps: 1, it is reached while it lives; 2, all is done. */
void
image(pid_t pid, const char *how)
{
	struct pollfd end = { (int)syscall(SYS_pidfd_open, pid, 0), POLLIN, 0 };
	char exe[64], kept[64];
	int fd, read_fd, watch = inotify_init1(0);

	snprintf(exe, sizeof(exe), "/proc/%d/exe", pid);
	fd = open(exe, O_PATH);
	try_it("path", fd);
	snprintf(kept, sizeof(kept), "/proc/self/fd/%d", fd);
	try_it("inotify", inotify_add_watch(watch, exe, IN_ALL_EVENTS));
	read_fd = open(exe, O_RDONLY);
	try_it("flock", read_fd < 0 ? -1 : flock(read_fd, LOCK_EX | LOCK_NB));
	/* One that stays open would be in the way of the lease. */
	if (read_fd >= 0 && strcmp(how, "lease") == 0)
		close(read_fd);
	if (strcmp(how, "mode") == 0)
		change(exe, 0555);
	counts->seen = 1;
	counts->ready = 1;
	while (poll(&end, 1, 100) == 0 && !counts->stop)
		continue;
	if (fd >= 0 && strcmp(how, "lease") == 0)
		lease(kept, F_WRLCK);
	else if (fd >= 0 && strcmp(how, "open") == 0)
		keep_open(kept);
	counts->seen = 2;
	wait_stop();
}

/*
 * Seizes whatever comes next, before its first instruction if it can, and has
 * it clone so many children of its parent's.  Numbers are given out in order.
 */
void
breed(long children)
{
	pid_t last = getpid(), pid;

	counts->ready = 1;
	while (!counts->stop) {
		for (pid = last + 1; pid < last + 100; pid++) {
			if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0) {
				if (errno == EPERM)
					last = pid;
				continue;
			}
			counts->seen++;
			last = pid;
			counts->attempts++;
			if (counts->wins < children)
				counts->wins += clone_by(pid, children);
			ptrace(PTRACE_DETACH, pid, NULL, NULL);
			break;
		}
		while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
			continue;
	}
}
