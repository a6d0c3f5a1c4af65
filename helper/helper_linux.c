/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The helper on Linux: one freestanding program, run three times over.
 *
 * Stage 1 (argv: "jailprobe", TITLE), on the host, from an image that no jail
 *   ever sees: makes itself harmless, joins the jail's namespaces, all but a
 *   user namespace, and executes the jail's own sealed image.  Where the jail
 *   has no user namespace it drops everything first.
 * Stage 2 (argv: TITLE), not yet visible in the jail, because it is still in
 *   the host's PID namespace: joins the user namespace and drops everything
 *   there; filtered and without privilege, it gives birth to the probe, a
 *   child of the daemon, and ends.
 * The probe is born with all of that, and sleeps until a signal kills it.
 *
 * Rule 0: no exec in the jail's user namespace.  Whether it may be traced is
 *   asked of the one in which a process executed (mm->user_ns).
 * Rule 1: after setns no path is looked up.
 * Rule 2: what a jail's root could use is gone before clone.
 */
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <asm/signal.h>

#include "helper.h"
#include "syscall_linux.h"

#define AT_EMPTY_PATH 0x1000
#define O_WRONLY 01
#define O_CLOEXEC 02000000
#define AT_FDCWD (-100)
#define EINVAL 22
#define ENOENT 2
#define ENOSYS 38
#define PROC_SUPER_MAGIC 0x9fa0

/* struct sigaction as rt_sigaction(2) takes it; all zero is SIG_DFL. */
struct kernel_sigaction {
	unsigned long handler, flags, restorer, mask;
};

/* A compiler may turn loops and initialisers into calls of these. */
void *
memset(void *dst, int c, size_t n)
{
	volatile unsigned char *p = dst;

	while (n-- > 0)
		*p++ = (unsigned char)c;
	return dst;
}

void *
memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	volatile unsigned char *d = dst;
	const unsigned char *s = src;

	while (n-- > 0)
		*d++ = *s++;
	return dst;
}

static void
tell(uint8_t kind, uint8_t step, int32_t value)
{
	struct record r = { kind, step, 0, value };

	/* Nobody reads: the daemon is gone, and so are we. */
	if (sys3(__NR_write, FD_STATUS, &r, sizeof(r)) != sizeof(r))
		die(1);
}

static _Noreturn void
fail(enum step step, long error)
{
	tell(RECORD_ERROR, (uint8_t)step, (int32_t)-error);
	die(1);
}

static void
must(enum step step, long result)
{
	if (result < 0)
		fail(step, result);
}

/* A HUP that comes from now on stays pending until the probe sleeps. */
static void
reset_signals(void)
{
	static const struct kernel_sigaction dfl;
	unsigned long all = ~0UL;

	must(STEP_SIGNALS, sys4(__NR_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8));
	/* Ignored dispositions survive exec (nohup), so reset every one. */
	for (long s = 1; s <= 64; s++)
		if (s != SIGKILL && s != SIGSTOP)
			must(STEP_SIGNALS,
			    sys4(__NR_rt_sigaction, s, &dfl, NULL, 8));
}

/* Nothing above descriptor `last` stays open. */
static void
be_alone(int last)
{
	static const struct rlimit none;
	long error;

	for (int fd = 0; fd < FD_STATUS; fd++)
		sys1(__NR_close, fd);
	must(STEP_CLOSE, sys3(__NR_close_range, last + 1, ~0U, 0));
	must(STEP_SESSION, sys0(__NR_setsid));
	/* Before setns: there it would be a look-up in the jail's tree. */
	static const char root[] = "/";
	must(STEP_CHDIR, sys1(__NR_chdir, root));
	sys1(__NR_umask, 077);
	must(STEP_RLIMIT, sys4(__NR_prlimit64, 0, RLIMIT_CORE, &none, NULL));
	/* The host's session keyring must not come along.  A kernel without
	 * keyrings says ENOSYS; a full quota says EDQUOT, and that is fatal. */
	error = sys2(__NR_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	if (error < 0 && error != -ENOSYS)
		fail(STEP_KEYRING, error);
}

/*
 * The label takes effect at the next exec.  Written now, while /proc is the
 * host's: a jail's /proc may be anything (CVE-2019-16884, CVE-2025-52881).
 */
static void
set_label(const struct params *p)
{
	static const char stacked[] = "/proc/thread-self/attr/apparmor/exec";
	static const char plain[] = "/proc/thread-self/attr/exec";
	char text[8 + LABEL_MAX];
	long fs[64] = { 0 }; /* struct statfs: f_type comes first */
	size_t len = 0;
	long fd;

	if (p->label_kind == LABEL_NONE)
		return;
	fd = -ENOENT;
	if (p->label_kind == LABEL_APPARMOR) {
		memcpy(text, "exec ", 5);
		len = 5;
		/* 5.8 and later; before, AppArmor owns the plain file. */
		fd = sys4(__NR_openat, AT_FDCWD, stacked, O_WRONLY | O_CLOEXEC,
		    0);
	}
	if (fd == -ENOENT)
		fd = sys4(__NR_openat, AT_FDCWD, plain, O_WRONLY | O_CLOEXEC,
		    0);
	must(STEP_LABEL, fd);
	must(STEP_LABEL, sys2(__NR_fstatfs, fd, fs));
	if (fs[0] != PROC_SUPER_MAGIC)
		fail(STEP_LABEL, -EINVAL);
	memcpy(text + len, p->label, p->label_len);
	len += p->label_len;
	must(STEP_LABEL, sys3(__NR_write, fd, text, len));
	sys1(__NR_close, fd);
}

/* No capability is left, and uid 0 gets none back at exec. */
static void
drop_caps(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3,
		0 };
	static const struct __user_cap_data_struct nothing[2];

	must(STEP_CAPS, sys2(__NR_capset, &head, nothing));
}

static void
drop_bounds(void)
{
	/* EINVAL: past the last capability this kernel knows. */
	for (long cap = 0; cap < 64; cap++) {
		long error = sys2(__NR_prctl, PR_CAPBSET_DROP, cap);

		if (error == -EINVAL)
			break;
		must(STEP_CAPS, error);
	}
	must(STEP_CAPS, sys5(__NR_prctl, PR_CAP_AMBIENT,
	    PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	must(STEP_CAPS, sys2(__NR_prctl, PR_SET_SECUREBITS,
	    SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
	    SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
	    SECBIT_NO_CAP_AMBIENT_RAISE |
	    SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED));
}

/* Whether the user namespace is joined after the exec, so in stage 2. */
static int
joins_later(const struct params *p)
{
	return (p->target & CLONE_NEWUSER) != 0 &&
	    (p->flags & FLAG_AT_ONCE) == 0;
}

static void
drop(const struct params *p)
{
	drop_bounds();
	must(STEP_GID, sys3(__NR_setresgid, p->gid, p->gid, p->gid));
	must(STEP_UID, sys3(__NR_setresuid, p->uid, p->uid, p->uid));
	drop_caps();
}

static void
join(const struct params *p)
{
	long kinds = p->target;

	/* The daemon itself lives where setgroups is denied (its own flag):
	 * then there is no privilege here that a group could add. */
	if (!(p->flags & FLAG_KEEP_GROUPS))
		must(STEP_GROUPS, sys2(__NR_setgroups, 0, NULL));
	/* Root of the first user namespace may join what a later one owns. */
	if (joins_later(p))
		kinds &= ~(long)CLONE_NEWUSER;
	must(STEP_ENTER, sys2(__NR_setns, FD_JAIL, kinds));
	sys1(__NR_close, FD_JAIL);
}

/* The record of this stage, and no byte of what follows it. */
static void
read_params(struct params *p, unsigned char *buf, size_t size)
{
	size_t len, label;
	long n;

	n = sys3(__NR_read, FD_GO, buf, PARAMS_HEAD);
	must(STEP_PARAMS, n);
	len = (size_t)n;
	if (len == PARAMS_HEAD) {
		label = buf[22] | (size_t)buf[23] << 8;
		if (label > size - PARAMS_HEAD)
			fail(STEP_PARAMS, -EINVAL);
		if (label > 0) {
			n = sys3(__NR_read, FD_GO, buf + PARAMS_HEAD, label);
			must(STEP_PARAMS, n);
			len += (size_t)n;
		}
	}
	if (params_read(buf, len, p) != 0)
		fail(STEP_PARAMS, -EINVAL);
}

static _Noreturn void
stage1(const char *title)
{
	unsigned char buf[PARAMS_HEAD + LABEL_MAX] = { 0 };
	const char *argv[2] = { title, NULL };
	const char *envp[1] = { NULL };
	static const char empty[] = "";
	struct params p;

	reset_signals();
	read_params(&p, buf, sizeof(buf));
	be_alone(joins_later(&p) ? FD_USERNS : FD_IMAGE);
	/* CVE-2016-9962: not to be traced on the way in. */
	must(STEP_DUMPABLE, sys2(__NR_prctl, PR_SET_DUMPABLE, 0));
	set_label(&p);
	join(&p);
	/* What runs from an image that it cannot read is not dumpable from its
	 * first instruction.  With capabilities, unseen yet, stage 2 sees to it. */
	if (!joins_later(&p))
		drop(&p);
	fail(STEP_EXEC, sys5(__NR_execveat, FD_IMAGE, empty, argv, envp,
	    AT_EMPTY_PATH));
}

#define LOAD(field) \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define SKIP_IF(value, n) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (n), 0)
#define SKIP_UNLESS(value, n) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (n))
#define ALLOWED BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILLED BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
/* Every filter begins so, and has the call's number in the accumulator then. */
#define BEGIN LOAD(arch), SKIP_IF(AUDIT_ARCH_OURS, 1), KILLED, LOAD(nr)
#define ALLOW(nr) SKIP_UNLESS(nr, 1), ALLOWED
/* By the first argument, a descriptor or an option: an int to the kernel. */
#define ALLOW_WITH(nr, a) \
	SKIP_UNLESS(nr, 4), LOAD(args[0]), SKIP_UNLESS(a, 1), ALLOWED, KILLED
#define ALLOW_EITHER(nr, a, b) \
	SKIP_UNLESS(nr, 5), LOAD(args[0]), SKIP_IF(a, 1), SKIP_UNLESS(b, 1), \
	    ALLOWED, KILLED
#define ALLOW_BOTH(nr, a, b) \
	SKIP_UNLESS(nr, 6), LOAD(args[0]), SKIP_UNLESS(a, 3), LOAD(args[1]), \
	    SKIP_UNLESS(b, 1), ALLOWED, KILLED

/* Stage 2's, and the probe's until its first system call. */
static const struct sock_filter birth[] = {
	BEGIN, ALLOW(__NR_rt_sigsuspend), ALLOW(__NR_read), ALLOW(__NR_write),
	ALLOW(__NR_close), ALLOW(__NR_clone), ALLOW(__NR_exit_group),
	ALLOW_EITHER(__NR_prctl, PR_SET_SECCOMP, PR_SET_PDEATHSIG), KILLED,
};

/*
 * The probe's for life, put on by its first system call: sleep, or end.  No
 * filter can tell a clone that a tracer injects from the birth, so there is
 * none.  What leads to the sleep does nothing later: those two are closed.
 */
static const struct sock_filter sleep_or_end[] = {
	BEGIN, ALLOW(__NR_rt_sigsuspend), ALLOW(__NR_exit_group),
	ALLOW_WITH(__NR_write, FD_STATUS), ALLOW_WITH(__NR_read, FD_GO),
	ALLOW_EITHER(__NR_close, FD_STATUS, FD_GO),
	ALLOW_BOTH(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL), KILLED,
};

static long
confine(const struct sock_filter *filter, unsigned short len)
{
	struct sock_fprog prog = { len, (struct sock_filter *)filter };

	return sys3(__NR_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

#define CONFINE(filter) confine(filter, sizeof(filter) / sizeof((filter)[0]))

static _Noreturn void
probe(void)
{
	unsigned long none = 0;
	char go = 0;

	must(STEP_SANDBOX, CONFINE(sleep_or_end));
	/* New credentials would clear it. */
	must(STEP_DEATHSIG, sys2(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL));
	tell(RECORD_READY, 0, 0);
	sys1(__NR_close, FD_STATUS);
	/* EOF: the daemon died, maybe before PDEATHSIG, or changed its mind. */
	if (sys3(__NR_read, FD_GO, &go, 1) != 1 || go != 'G')
		die(1);
	sys1(__NR_close, FD_GO);
	/* In stage 1's session, alone: by that the daemon knows whose it is. */
	for (;;)
		sys2(__NR_rt_sigsuspend, &none, 8);
}

/* By its descriptor: to join it by the pidfd asks for leave to trace init. */
static void
join_user_namespace(const struct params *p)
{
	must(STEP_USERNS, sys2(__NR_setns, FD_USERNS, CLONE_NEWUSER));
	sys1(__NR_close, FD_USERNS);
	/* Only now: to join one gives every capability in it. */
	drop(p);
	/* Again: new ids set it to fs.suid_dumpable. */
	must(STEP_DUMPABLE, sys2(__NR_prctl, PR_SET_DUMPABLE, 0));
}

static _Noreturn void
stage2(void)
{
	static const char name[] = PROBE_NAME;
	unsigned char buf[PARAMS_HEAD] = { 0 };
	struct params p;
	long pid;

	must(STEP_DUMPABLE, sys2(__NR_prctl, PR_SET_DUMPABLE, 0));
	sys1(__NR_close, FD_IMAGE);
	read_params(&p, buf, sizeof(buf));
	if (joins_later(&p))
		join_user_namespace(&p);
	must(STEP_NAME, sys2(__NR_prctl, PR_SET_NAME, name));
	/* After exec: before it, it would forbid the change of the label. */
	must(STEP_NNP, sys5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	must(STEP_SECCOMP, CONFINE(birth));
	/* The daemon's child, not ours, and the first process of ours that the
	 * jail can see.  ENOMEM: the PID namespace is dying. */
	pid = sys5(__NR_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	must(STEP_CLONE, pid);
	if (pid == 0)
		probe();
	tell(RECORD_PID, 0, (int32_t)pid);
	die(0);
}

__attribute__((used)) _Noreturn void
helper_main(const long *stack)
{
	const char *const *argv = (const char *const *)(stack + 1);

	if (stack[0] == 2)
		stage1(argv[1]);
	if (stack[0] == 1)
		stage2();
	die(2);
}
