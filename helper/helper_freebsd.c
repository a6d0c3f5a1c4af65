/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The helper on FreeBSD: one process, which makes itself harmless, enters the
 * jail and becomes the probe.  There is no exec after jail_attach(2), so
 * nothing in the jail's file system is ever looked up, and P_SUGID stays.
 *
 * Order is the whole point: everything a jail's root could use (descriptors,
 * traceability, memory) is gone before jail_attach makes us visible there.
 */
#include <sys/param.h>
#include <sys/capsicum.h>
#include <sys/jail.h>
#include <sys/procctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "helper.h"

#ifndef PROC_NO_NEW_PRIVS_CTL
#define PROC_NO_NEW_PRIVS_CTL 19
#define PROC_NO_NEW_PRIVS_ENABLE 1
#endif

static void
tell(uint8_t kind, uint8_t step, int32_t value)
{
	struct record r = { kind, step, 0, value };

	/* Nobody reads: the daemon is gone, and so are we. */
	if (write(FD_STATUS, &r, sizeof(r)) != (ssize_t)sizeof(r))
		_exit(1);
}

static _Noreturn void
fail(enum step step)
{
	tell(RECORD_ERROR, (uint8_t)step, errno);
	_exit(1);
}

/* A HUP that comes from now on stays pending until the probe sleeps. */
static void
reset_signals(void)
{
	struct sigaction sa;
	sigset_t all;

	sigfillset(&all);
	if (sigprocmask(SIG_SETMASK, &all, NULL) != 0)
		fail(STEP_SIGNALS);
	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = SIG_DFL;
	/* Ignored dispositions survive exec (nohup), so reset every one.  NSIG
	 * ends before the real-time signals; 33 to 64 are no signals: EINVAL. */
	for (int s = 1; s <= _SIG_MAXSIG; s++)
		if (s != SIGKILL && s != SIGSTOP &&
		    sigaction(s, &sa, NULL) != 0 && errno != EINVAL)
			fail(STEP_SIGNALS);
}

static void
read_params(struct params *p, unsigned char *buf, size_t size)
{
	ssize_t n = read(FD_GO, buf, size);

	if (n < 0)
		fail(STEP_PARAMS);
	if (params_read(buf, (size_t)n, p) != 0) {
		errno = EINVAL;
		fail(STEP_PARAMS);
	}
}

static void
be_alone(void)
{
	struct rlimit none = { 0, 0 };

	close(0);
	close(1);
	close(2);
	/* An open directory makes jail_attach(2) fail, and would be a way out. */
	closefrom(FD_GO + 1);
	/* A terminal's hangup and an orphaned stopped group send SIGHUP. */
	if (setsid() == -1)
		fail(STEP_SESSION);
	/* The name of who started the daemon, which a jail's ps(1) would show. */
	if (setlogin("") != 0)
		fail(STEP_SESSION);
	if (chdir("/") != 0)
		fail(STEP_CHDIR);
	umask(077);
	if (setrlimit(RLIMIT_CORE, &none) != 0 ||
	    setrlimit(RLIMIT_NPROC, &none) != 0)
		fail(STEP_RLIMIT);
}

static void
be_untouchable(void)
{
	int sig = SIGKILL, trace = PROC_TRACE_CTL_DISABLE_EXEC;
	int nnp = PROC_NO_NEW_PRIVS_ENABLE;

	if (procctl(P_PID, 0, PROC_PDEATHSIG_CTL, &sig) != 0)
		fail(STEP_DEATHSIG);
	/* p_candebug() then wants PRIV_DEBUG_DENIED, which no jail grants. */
	if (procctl(P_PID, 0, PROC_TRACE_CTL, &trace) != 0)
		fail(STEP_UNTRACE);
	/* A kernel before 13.1 does not know it and says EINVAL. */
	if (procctl(P_PID, 0, PROC_NO_NEW_PRIVS_CTL, &nnp) != 0 &&
	    errno != EINVAL)
		fail(STEP_NNP);
}

static void
enter(const struct params *p)
{
	if (setgroups(0, NULL) != 0)
		fail(STEP_GROUPS);
	/*
	 * By jid, on 15 too: there jail_attach_jd(2) leaks a reference to the
	 * prison each time (15.1, do_jail_attach forgets PD_DEREF), which keeps
	 * a removed jail's file system busy for good.  That the jid still means
	 * the same jail is for the daemon to see, before it says "go".
	 */
	if (jail_attach((int)p->target) != 0)
		fail(STEP_ENTER);
	if (setresgid(p->gid, p->gid, p->gid) != 0)
		fail(STEP_GID);
	if (setresuid(p->uid, p->uid, p->uid) != 0)
		fail(STEP_UID);
	/* ENOSYS: a kernel without CAPABILITY_MODE. */
	if (cap_enter() != 0 && errno != ENOSYS)
		fail(STEP_SANDBOX);
}

int
main(void)
{
	unsigned char buf[PARAMS_HEAD + LABEL_MAX + 1];
	struct params p;
	sigset_t none;
	char go;

	reset_signals();
	read_params(&p, buf, sizeof(buf));
	be_alone();
	be_untouchable();
	enter(&p);
	tell(RECORD_READY, 0, 0);
	close(FD_STATUS);
	/* EOF: the daemon died or changed its mind. */
	if (read(FD_GO, &go, 1) != 1 || go != 'G')
		_exit(1);
	close(FD_GO);
	sigemptyset(&none);
	for (;;)
		sigsuspend(&none);
}
