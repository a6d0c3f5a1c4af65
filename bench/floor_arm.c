/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What arming costs without a daemon:  floor_arm COUNT HELPER TARGET [INIT]
 *
 * Arms COUNT probes one after the other by the very helper, as helper.h says,
 * prints the seconds, and ends the probes.  TARGET is the jid, or on Linux the
 * namespaces to join, of the process INIT.  No policy, no checks, no journal.
 */
#ifdef __linux__
#define _GNU_SOURCE
#include <sys/syscall.h>
#endif
#include <sys/types.h>
#include <sys/wait.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "helper.h"

#define MOST 500
/* Each stage of the helper reads a record of its own. */
#ifdef __linux__
#define STAGES 2
#else
#define STAGES 1
#endif

static const char *helper;
static int jail_fd = -1, image_fd = -1;
static uint32_t target;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void
pipe_of(int fds[2])
{
	if (pipe2(fds, O_CLOEXEC) != 0)
		err(1, "pipe2");
}

static pid_t
spawn(int status, int go)
{
	char name[] = "jailprobe", title[] = "jaildaemon: FLOOR";
#ifdef __linux__
	char *argv[] = { name, title, NULL };
#else
	char *argv[] = { title, NULL };
#endif
	char *none[] = { NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t all;
	pid_t pid;

	(void)name;
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &all);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_adddup2(&actions, status, FD_STATUS);
	posix_spawn_file_actions_adddup2(&actions, go, FD_GO);
	if (jail_fd >= 0) {
		posix_spawn_file_actions_adddup2(&actions, jail_fd, FD_JAIL);
		posix_spawn_file_actions_adddup2(&actions, image_fd, FD_IMAGE);
	}
	errno = posix_spawn(&pid, helper, &actions, &attributes, argv, none);
	if (errno != 0)
		err(1, "posix_spawn(%s)", helper);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return pid;
}

/* Returns the pid of a probe that sleeps. */
static pid_t
arm(void)
{
	const uint32_t params[PARAMS_HEAD / 4] = { PARAMS_MAGIC, 0, target, 0,
		0, 0 };
	struct record r;
	int status[2], go[2], ready = 0;
	pid_t stage1, probe = 0;

	pipe_of(status);
	pipe_of(go);
	for (int stage = 0; stage < STAGES; stage++)
		if (write(go[1], params, sizeof(params)) !=
		    (ssize_t)sizeof(params))
			err(1, "write");
	stage1 = spawn(status[1], go[0]);
	close(status[1]);
	close(go[0]);
#ifndef __linux__
	probe = stage1;
#endif
	while (!ready || probe == 0) {
		if (read(status[0], &r, sizeof(r)) != (ssize_t)sizeof(r))
			errx(1, "the helper ended without a report");
		if (r.kind == RECORD_PID)
			probe = r.value;
		else if (r.kind == RECORD_READY)
			ready = 1;
		else
			errx(1, "step %d of the helper: errno %d", r.step,
			    (int)r.value);
	}
	if (write(go[1], "G", 1) != 1)
		err(1, "write");
	close(status[0]);
	close(go[1]);
	if (stage1 != probe && waitpid(stage1, NULL, 0) != stage1)
		err(1, "waitpid(%d)", (int)stage1);
	return probe;
}

int
main(int argc, char **argv)
{
	static pid_t probes[MOST];
	int count, fd;
	double began;

	if (argc < 4 || (count = atoi(argv[1])) < 1 || count > MOST)
		errx(2, "usage: floor_arm COUNT HELPER TARGET [INIT]");
	helper = argv[2];
	target = (uint32_t)strtoul(argv[3], NULL, 10);
	/* What is moved to 3 to 6 for the helper never lies there already. */
	do
		fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && fd <= FD_IMAGE);
#ifdef __linux__
	if (argc < 5)
		errx(2, "which process is in the jail?");
	jail_fd = (int)syscall(SYS_pidfd_open, atoi(argv[4]), 0);
	image_fd = open(helper, O_RDONLY | O_CLOEXEC);
	if (jail_fd < 0 || image_fd < 0)
		err(1, "%s or process %s", helper, argv[4]);
#endif
	began = now();
	for (int i = 0; i < count; i++)
		probes[i] = arm();
	printf("%.6f\n", now() - began);
	for (int i = 0; i < count; i++)
		if (kill(probes[i], SIGHUP) != 0 ||
		    waitpid(probes[i], NULL, 0) != probes[i])
			err(1, "probe %d", (int)probes[i]);
	return 0;
}
