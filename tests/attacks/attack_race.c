/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The race: whoever turns up in the jail is seized at once, and everything else
 * is tried on it for as long as it lives.  Numbers are given out in order, so
 * the next ones are tried before anybody has them.
 */
#include "attacker.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define AHEAD 4
#define FAR 600 /* so many at most are born and gone while we are not running */
#define LIVE 128

static pid_t live[LIVE];
static int lives;

static int
path_opens(const char *fmt, pid_t pid, int fd, int flags)
{
	char path[64];
	int opened;

	snprintf(path, sizeof(path), fmt, pid, fd);
	opened = open(path, flags | O_NONBLOCK | O_CLOEXEC);
	if (opened >= 0)
		close(opened);
	return opened;
}

/* It opens for a process that is ending, too, and is empty then. */
static long
environ_reads(pid_t pid)
{
	char path[64], byte;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, &byte, 1);
	close(fd);
	return n == 1 ? 0 : -1;
}

static long
getfd(pid_t pid, int theirs)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int fd;

	if (pidfd < 0)
		return -1;
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0);
	close(pidfd);
	if (fd >= 0)
		close(fd);
	return fd;
}

static long
vm_reads(pid_t pid)
{
	char byte;
	struct iovec here = { &byte, 1 }, there = { (void *)0x400000, 1 };

	/* EFAULT comes after the permission: it is one. */
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) == 1 || errno == EFAULT)
		return 0;
	return -1;
}

/* 1: it is there.  0: it is not.  Whoever is won is kept traced. */
static int
seize(pid_t pid)
{
	long result = ptrace(PTRACE_SEIZE, pid, NULL, NULL);

	if (result < 0 && errno == ESRCH)
		return 0;
	try_it("ptrace", result);
	return 1;
}

static int
press(pid_t pid, unsigned turn)
{
	switch (turn % 7) {
	case 0:
		return seize(pid);
	case 1:
		try_it("process_vm_readv", vm_reads(pid));
		break;
	case 2:
		try_it("pidfd_getfd", getfd(pid, 3));
		try_it("pidfd_getfd", getfd(pid, 4));
		break;
	case 3:
		try_it("environ", environ_reads(pid));
		break;
	case 4:
		try_it("fd", path_opens("/proc/%d/fd/%d", pid, 3, O_WRONLY));
		try_it("fd", path_opens("/proc/%d/fd/%d", pid, 4, O_RDONLY));
		break;
	case 5:
		try_it("root", path_opens("/proc/%d/root", pid, 0, O_RDONLY));
		try_it("cwd", path_opens("/proc/%d/cwd", pid, 0, O_RDONLY));
		break;
	default:
		try_it("exe", path_opens("/proc/%d/exe", pid, 0, O_RDONLY));
		try_it("ns", path_opens("/proc/%d/ns/net", pid, 0, O_RDONLY));
	}
	return 1;
}

void
race(void)
{
	pid_t last = getpid(), pid;
	unsigned turn = 0, idle = 0;
	int which = 0, ahead;

	counts->ready = 1;
	while (!counts->stop) {
		ahead = ++idle % 16 ? AHEAD : FAR;
		for (pid = last + 1; pid <= last + ahead; pid++)
			if (seize(pid)) {
				counts->seen++;
				last = pid;
				idle = 0;
				live[lives < LIVE ? lives++ : which] = pid;
				break;
			}
		if (lives > 0) {
			which = (which + 1) % lives;
			if (which == 0)
				turn++;
			if (!press(live[which], turn))
				live[which] = live[--lives];
			which = lives ? which % lives : 0;
		}
		/* Its parent gets a dead one only when we let go. */
		while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
			continue;
	}
}
