/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The floor: what a C program needs at least for what jaildaemon does.
 *
 *   floor COMMAND
 *
 * Keeps one sleeping child.  When a signal kills it, runs COMMAND by /bin/sh
 * in a session of its own, waits for it, and starts the next child; prints each
 * child's pid.  The same system calls as any such parent: a pidfd, poll,
 * waitid, posix_spawn.  No policy, no log, no jail.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t
sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

static int
wait_for(pid_t pid)
{
	struct pollfd p = { (int)syscall(SYS_pidfd_open, pid, 0), POLLIN, 0 };
	int status = -1;

	if (p.fd < 0 || poll(&p, 1, -1) != 1 ||
	    waitpid(pid, &status, WNOHANG) != pid)
		exit(1);
	close(p.fd);
	return status;
}

int
main(int argc, char **argv)
{
	char *environment[] = { "PATH=/sbin:/bin:/usr/sbin:/usr/bin",
		"HOME=/root", "LANG=C.UTF-8", "JAILDAEMON_JID=1",
		"JAILDAEMON_JAIL=1", "JAILDAEMON_TITLE=BENCH",
		"JAILDAEMON_RULE=t1", "JAILDAEMON_RUN=1", NULL };
	char *shell[] = { "/bin/sh", "-c", argc > 1 ? argv[1] : ":", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	for (int fd = 0; fd < 3; fd++)
		posix_spawn_file_actions_addopen(&actions, fd, "/dev/null",
		    O_RDWR, 0);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
	for (;;) {
		pid = sleeper();
		printf("%d\n", (int)pid);
		fflush(stdout);
		if (!WIFSIGNALED(wait_for(pid)))
			return 1;
		if (posix_spawn(&pid, shell[0], &actions, &attributes, shell,
			environment) != 0)
			return 1;
		wait_for(pid);
	}
}
