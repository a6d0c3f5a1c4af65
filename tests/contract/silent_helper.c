/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * In the helper's place: dies before it reports.  On Linux it has given birth
 * by then to a child of the daemon's, of which nobody was told.
 */
#ifdef __linux__
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int
main(void)
{
	/* As the helper: by its session it is known whose the child is. */
	if (setsid() < 0)
		return 1;
	if (setns(5, CLONE_NEWPID) != 0)
		return 1;
	if (syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) != 0)
		return 1;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(3);
	for (;;)
		pause();
}
#else
int
main(void)
{
	return 1;
}
#endif
