/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A naive probe in C, executed from its file on the host:  naive_exe INIT CAPS
 * prints its pid.  It keeps the capabilities CAPS, as `docker exec` would.
 */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void
keep(unsigned long long caps)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	for (int cap = 0; cap < 64; cap++)
		if (!(caps >> cap & 1))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	syscall(SYS_capget, &head, data);
	data[0].effective = data[0].permitted &= (unsigned)caps;
	data[1].effective = data[1].permitted &= (unsigned)(caps >> 32);
	syscall(SYS_capset, &head, data);
}

int
main(int argc, char **argv)
{
	int pidfd = argc == 3 ? (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0) : -1;
	pid_t pid;

	if (setns(pidfd, CLONE_NEWNS | CLONE_NEWPID) != 0)
		return 1;
	pid = fork();
	if (pid != 0) {
		printf("%d\n", (int)pid);
		return 0;
	}
	keep(strtoull(argv[2], NULL, 16));
	close(0);
	close(1);
	close(2);
	for (;;)
		pause();
}
