/* SPDX-License-Identifier: BSD-2-Clause */
/* What the root of a FreeBSD jail does to all that is in it, and what it can see of its tree. */
#ifdef __FreeBSD__
#include <sys/param.h>
#include <sys/event.h>
#include <sys/sysctl.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fbsd_attacker.h"

/* The signal to each that is there, but us, and again as soon as it is there. */
void
flood(pid_t us, int number)
{
	static struct kinfo_proc all[4096];
	int mib[3] = { CTL_KERN, KERN_PROC, KERN_PROC_PROC };

	counts->ready = 1;
	while (!counts->stop) {
		size_t len = sizeof(all);

		if (sysctl(mib, 3, all, &len, NULL, 0) != 0)
			continue;
		for (size_t i = 0; i < len / sizeof(all[0]); i++)
			if (all[i].ki_pid != us && all[i].ki_pid != getpid() &&
			    kill(all[i].ki_pid, number) == 0)
				counts->attempts++;
	}
}

/* Processes until there is no more room, each of them kept. */
void
bomb(long limit)
{
	pid_t pid = 0;

	setpgid(0, 0);
	while (counts->attempts < limit && (pid = fork()) >= 0) {
		if (pid == 0) {
			signal(SIGTERM, SIG_DFL);
			pause();
			_exit(0);
		}
		counts->attempts++;
	}
	counts->wins = pid < 0 ? errno : 0;
	counts->ready = 1;
	while (!counts->stop)
		pause();
	kill(0, SIGTERM);
	while (wait(NULL) > 0)
		continue;
}

/* Processes, each the child of the one before. */
void
chain(long length)
{
	pid_t first = getpid(), pid = 0;

	setpgid(0, 0);
	while (pid == 0 && counts->attempts < length && (pid = fork()) == 0) {
		signal(SIGTERM, SIG_DFL);
		counts->attempts++;
	}
	if (pid <= 0)
		counts->ready = 1;
	while (getpid() != first || !counts->stop)
		pause();
	kill(0, SIGTERM);
	while (wait(NULL) > 0)
		continue;
}

/* The tree of the jail is mined: whatever is opened or read in it is seen. */
void
watch_tree(void)
{
	static const char *const places[] = { "/", "/etc", "/lib", "/libexec",
		"/dev", "/usr/lib", "/etc/group", "/etc/nsswitch.conf",
		"/etc/passwd", "/lib/libc.so.7", "/libexec/ld-elf.so.1",
		"/usr/lib/libc.so.7", "/dev/null" };
	static const struct timespec now;
	struct kevent event;
	int queue = kqueue();

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		int fd = open(places[i], O_RDONLY | O_NONBLOCK);

		EV_SET(&event, fd, EVFILT_VNODE, EV_ADD | EV_CLEAR,
		    NOTE_OPEN | NOTE_READ, 0, NULL);
		if (fd >= 0 && kevent(queue, &event, 1, NULL, 0, NULL) == 0)
			counts->attempts++;
	}
	/* What we opened ourselves is not to be counted. */
	while (kevent(queue, NULL, 0, &event, 1, &now) > 0)
		continue;
	counts->ready = 1;
	while (!counts->stop)
		pause();
	while (kevent(queue, NULL, 0, &event, 1, &now) > 0)
		counts->wins++;
}

/* Without any right but a user's. */
void
kill_as(uid_t uid, pid_t pid, int number)
{
	if (setgid(uid) != 0 || setuid(uid) != 0)
		printf("setuid: %s\n", strerror(errno));
	else
		printf("%s\n", kill(pid, number) ? strerror(errno) : "ok");
}
#endif
