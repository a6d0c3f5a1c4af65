/* SPDX-License-Identifier: BSD-2-Clause */
/* What only a tracer can do, so what is left to the root of a --privileged jail. */
#include "attacker.h"

#include <elf.h>
#include <linux/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The C library's header and the kernel's do not go together. */
long ptrace(int, ...);

static void
put_call(struct user_regs_struct *regs, long number, long argument)
{
#if defined(__x86_64__)
	regs->rip -= 2; /* it sleeps in a system call: back to its instruction */
	regs->rax = (unsigned long long)number;
	regs->orig_rax = ~0ULL; /* not to be restarted */
	regs->rdi = (unsigned long long)argument;
#elif defined(__aarch64__)
	regs->pc -= 4;
	regs->regs[8] = (unsigned long long)number;
	regs->regs[0] = (unsigned long long)argument;
#endif
}

static long
result_of(const struct user_regs_struct *regs)
{
#if defined(__x86_64__)
	return (long)regs->rax;
#else
	return (long)regs->regs[0];
#endif
}

/* Makes it clone children of its parent's; it goes on where it was. */
long
clone_by(pid_t pid, long children)
{
	struct user_regs_struct regs, before;
	struct iovec set = { &regs, sizeof(regs) }, back = { &before, sizeof(before) };
	long made = 0;
	int status;

	if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) != 0 ||
	    waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status) ||
	    ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &back) != 0)
		return 0;
	while (made < children) {
		regs = before;
		put_call(&regs, SYS_clone, 0x8000 | SIGCHLD); /* CLONE_PARENT */
#if defined(__x86_64__)
		regs.rsi = regs.rdx = regs.r10 = regs.r8 = 0;
#elif defined(__aarch64__)
		regs.regs[1] = regs.regs[2] = regs.regs[3] = regs.regs[4] = 0;
#endif
		if (ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &set) != 0 ||
		    ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 ||
		    waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status) ||
		    ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &set) != 0 ||
		    result_of(&regs) <= 0)
			break;
		made++;
	}
	ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &back);
	return made;
}

/* Makes it execute one system call of ours. */
void
inject(pid_t pid, long number, long argument, int suspend)
{
	struct user_regs_struct regs;
	struct iovec set = { &regs, sizeof(regs) };
	long options = suspend ? PTRACE_O_SUSPEND_SECCOMP : 0;
	int status;

	counts->attempts++;
	if (ptrace(PTRACE_SEIZE, pid, NULL, options) != 0) {
		say("seize: %s", strerror(errno));
		return;
	}
	if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) != 0 ||
	    waitpid(pid, &status, __WALL) != pid ||
	    ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &set) != 0) {
		say("interrupt: %s", strerror(errno));
		return;
	}
	put_call(&regs, number, argument);
	if (ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &set) != 0 ||
	    ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 ||
	    waitpid(pid, &status, __WALL) != pid) {
		say("step: %s", strerror(errno));
		return;
	}
	if (WIFSTOPPED(status)) {
		ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &set);
		say("returned %ld", result_of(&regs));
	} else if (WIFSIGNALED(status))
		say("signal %d", WTERMSIG(status));
	else
		say("exit %d", WEXITSTATUS(status));
}

/* Nobody can reap it before its tracer has, and this one does not. */
void
hold(pid_t pid)
{
	siginfo_t told;
	sigset_t set;
	int which;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, STOP_SIGNAL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	counts->attempts++;
	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0)
		snprintf(counts->won, sizeof(counts->won), "no:%d", errno);
	else
		counts->wins++;
	counts->ready = 1;
	while (!counts->stop) {
		sigwait(&set, &which);
		/* What it dies of is let through; that it died is not looked at. */
		memset(&told, 0, sizeof(told));
		if (waitid(P_PID, (id_t)pid, &told, WSTOPPED | WNOHANG) == 0 &&
		    told.si_pid == pid)
			ptrace(PTRACE_CONT, pid, NULL, told.si_status & 0xff);
	}
}

static int
found_in(int mem, unsigned long from, unsigned long to, const char *secret)
{
	size_t len = strlen(secret);
	char *bytes = malloc(to - from);
	ssize_t n;
	int found = 0;

	if (bytes == NULL)
		return 0;
	n = pread(mem, bytes, to - from, (off_t)from);
	if (n > 0) {
		counts->seen += n;
		found = memmem(bytes, (size_t)n, secret, len) != NULL;
	}
	free(bytes);
	return found;
}

/* Looks for the host's secret in all of its memory. */
void
scan(pid_t pid, const char *secret)
{
	char path[64], line[512];
	unsigned long from, to;
	int mem, found = 0;
	FILE *maps;

	counts->attempts++;
	counts->seen = 0;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "r");
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY);
	if (maps == NULL || mem < 0) {
		say("scan: %s", strerror(errno));
		return;
	}
	while (fgets(line, sizeof(line), maps) != NULL)
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 &&
		    to - from < 1UL << 30)
			found |= found_in(mem, from, to, secret);
	say("scanned %ld found %d", counts->seen, found);
}
