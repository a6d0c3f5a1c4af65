/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The attacker on FreeBSD: root of a jail.  Serves its standard input as
 * attacker.c does; "race" attaches to whoever turns up in the jail, at once.
 */
#ifdef __FreeBSD__
#include <sys/param.h>
#include <sys/cpuset.h>
#include <sys/uio.h>

#include <sys/ktrace.h>
#include <sys/mman.h>
#include <sys/procctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/rtprio.h>
#include <sys/sysctl.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fbsd_attacker.h"

#define LIVE 128
#define BEHIND 8
#define AHEAD 24

struct counts *counts;
static pid_t live[LIVE], background;
static int lives;

static int
try_it(const char *name, int won)
{
	size_t used = strlen(counts->won);

	counts->attempts++;
	if (!won)
		return 0;
	counts->wins++;
	if (strstr(counts->won, name) == NULL &&
	    used + strlen(name) + 2 < sizeof(counts->won)) {
		strcat(counts->won, used ? "," : "");
		strcat(counts->won, name);
	}
	return 1;
}

/* 1: there, and it let us.  0: there.  -1: not there, for us at least. */
static int
attach(pid_t pid)
{
	if (ptrace(PT_ATTACH, pid, NULL, 0) == 0) {
		waitpid(pid, NULL, 0);
		ptrace(PT_DETACH, pid, (caddr_t)1, 0);
		return 1;
	}
	return errno == ESRCH || errno == EINVAL ? -1 : 0;
}

static int
reads(int what, pid_t pid)
{
	int mib[4] = { CTL_KERN, KERN_PROC, what, pid };
	static char buf[1 << 20];
	size_t len = sizeof(buf);

	return sysctl(mib, 4, buf, &len, NULL, 0) == 0 && len > 0;
}

static int
traces(pid_t pid)
{
	int won;

	close(open("/tmp/attack.ktrace", O_CREAT | O_TRUNC | O_RDWR, 0600));
	won = ktrace("/tmp/attack.ktrace", KTROP_SET, KTRFAC_SYSCALL, pid) == 0;
	if (won)
		ktrace("/tmp/attack.ktrace", KTROP_CLEAR, KTRFAC_SYSCALL, pid);
	unlink("/tmp/attack.ktrace");
	return won;
}

static int
control(pid_t pid, int command, int value)
{
	return procctl(P_PID, pid, command, &value) == 0;
}

static void
press(pid_t pid, unsigned turn)
{
	switch (turn % 5) {
	case 0:
		try_it("env", reads(KERN_PROC_ENV, pid));
		break;
	case 1:
		try_it("filedesc", reads(KERN_PROC_FILEDESC, pid));
		break;
	case 2:
		try_it("vmmap", reads(KERN_PROC_VMMAP, pid));
		break;
	case 3:
		try_it("cwd", reads(KERN_PROC_CWD, pid));
		break;
	default:
		try_it("ktrace", traces(pid));
	}
}

/* The jail's processes that are neither of us: where the numbers are now. */
static pid_t
newest(pid_t us)
{
	static struct kinfo_proc all[256];
	int mib[3] = { CTL_KERN, KERN_PROC, KERN_PROC_PROC };
	size_t len = sizeof(all);
	pid_t found = 0;

	if (sysctl(mib, 3, all, &len, NULL, 0) != 0)
		return 0;
	for (size_t i = 0; i < len / sizeof(all[0]); i++)
		if (all[i].ki_pid > us && all[i].ki_pid > found)
			found = all[i].ki_pid;
	return found;
}

static int
known(pid_t pid)
{
	for (int i = 0; i < lives; i++)
		if (live[i] == pid)
			return 1;
	return 0;
}

static void
race(void)
{
	pid_t us = getpid(), last = us;
	unsigned turn = 0;
	int which = 0, there;

	counts->ready = 1;
	while (!counts->stop) {
		pid_t now = ++turn % 4 ? 0 : newest(us);

		if (now > last)
			last = now;
		for (pid_t pid = MAX(us + 1, last - BEHIND);
		     pid <= last + AHEAD; pid++) {
			if (known(pid) || (there = attach(pid)) < 0)
				continue;
			counts->seen++;
			try_it("attach", there);
			live[lives < LIVE ? lives++ : 0] = pid;
			last = MAX(last, pid);
		}
		if (lives > 0) {
			which = (which + 1) % lives;
			there = attach(live[which]);
			if (there < 0) {
				live[which] = live[--lives];
				continue;
			}
			try_it("attach", there);
			press(live[which], turn);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
	}
}

static void
tell(const char *name, int won)
{
	int error = errno;

	if (try_it(name, won))
		printf("won %s\n", name);
	else
		printf("lost %s %s\n", name, strerror(error));
}

/* By procfs(5), where the jail has one: text or memory of another process. */
static int
opens(const char *procfs, pid_t pid, const char *name)
{
	char path[1024], byte[256];
	int fd, won;

	snprintf(path, sizeof(path), "%s/%d/%s", procfs, (int)pid, name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	if (strcmp(name, "mem") == 0)
		lseek(fd, 0x200000, SEEK_SET);
	won = read(fd, byte, sizeof(byte)) > 0;
	close(fd);
	return won;
}

static void
look_procfs(pid_t pid, const char *procfs)
{
	static const char *const names[] = { "mem", "map", "regs", "fpregs",
		"dbregs" };

	counts->seen++;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		tell(names[i], opens(procfs, pid, names[i]));
}

static void
look(pid_t pid)
{
	counts->seen++;
	tell("env", reads(KERN_PROC_ENV, pid));
	tell("auxv", reads(KERN_PROC_AUXV, pid));
	tell("filedesc", reads(KERN_PROC_FILEDESC, pid));
	tell("vmmap", reads(KERN_PROC_VMMAP, pid));
	tell("kstack", reads(KERN_PROC_KSTACK, pid));
	tell("cwd", reads(KERN_PROC_CWD, pid));
	tell("sigtramp", reads(KERN_PROC_SIGTRAMP, pid));
	tell("ps_strings", reads(KERN_PROC_PS_STRINGS, pid));
	tell("rlimit", reads(KERN_PROC_RLIMIT, pid));
	tell("ofiledesc", reads(KERN_PROC_OFILEDESC, pid));
	tell("ovmmap", reads(KERN_PROC_OVMMAP, pid));
	tell("ktrace", traces(pid));
	tell("untrace", control(pid, PROC_TRACE_CTL, PROC_TRACE_CTL_ENABLE));
	tell("protect", control(pid, PROC_SPROTECT, PPROT_SET));
	tell("deathsig", control(pid, PROC_PDEATHSIG_CTL, SIGHUP));
	tell("attach", attach(pid) == 1);
}

/* What root may do to its processes besides: it must neither ring nor silence. */
static void
nuisance(pid_t pid)
{
	struct rtprio idle = { RTP_PRIO_IDLE, 31 };
	cpuset_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	tell("setpriority", setpriority(PRIO_PROCESS, pid, 20) == 0);
	tell("rtprio", rtprio(RTP_SET, pid, &idle) == 0);
	tell("affinity", cpuset_setaffinity(CPU_LEVEL_WHICH, CPU_WHICH_PID, pid,
	    sizeof(one), &one) == 0);
	tell("group", setpgid(pid, getpid()) == 0);
	tell("reap", control(pid, PROC_REAP_ACQUIRE, 0));
	tell("new_privs", control(pid, PROC_NO_NEW_PRIVS_CTL, 2));
}

static void
hold(pid_t pid)
{
	counts->attempts++;
	if (ptrace(PT_ATTACH, pid, NULL, 0) == 0)
		counts->wins++;
	counts->ready = 1;
	while (!counts->stop)
		pause();
}

static void
woken(int number)
{
	(void)number;
}

static void
command(char **word)
{
	pid_t pid = word[1] ? atoi(word[1]) : 0;

	if (strcmp(word[0], "race") == 0)
		race();
	else if (strcmp(word[0], "look") == 0)
		look(pid);
	else if (strcmp(word[0], "procfs") == 0)
		look_procfs(pid, word[2]);
	else if (strcmp(word[0], "nuisance") == 0)
		nuisance(pid);
	else if (strcmp(word[0], "hold") == 0)
		hold(pid);
	else if (strcmp(word[0], "flood") == 0)
		flood(getppid(), pid);
	else if (strcmp(word[0], "bomb") == 0)
		bomb(pid);
	else if (strcmp(word[0], "chain") == 0)
		chain(pid);
	else if (strcmp(word[0], "watch") == 0)
		watch_tree();
	else if (strcmp(word[0], "kill-as") == 0)
		kill_as((uid_t)pid, atoi(word[2]), atoi(word[3]));
	else if (strcmp(word[0], "kill") == 0)
		printf("%s\n", kill(pid, atoi(word[2])) ? strerror(errno) : "ok");
	else
		printf("what is %s?\n", word[0]);
	fflush(stdout);
}

static pid_t
child(char **word)
{
	pid_t pid = fork();

	if (pid == 0) {
		for (int s = 1; s <= SIGUSR2; s++)
			signal(s, s == SIGCHLD ? SIG_DFL : SIG_IGN);
		signal(SIGUSR1, woken);
		siginterrupt(SIGUSR1, 1);
		command(word);
		_exit(0);
	}
	return pid;
}

static void
report(void)
{
	printf("attempts=%ld seen=%ld wins=%ld won=%s\n", counts->attempts,
	    counts->seen, counts->wins, counts->won);
}

int
main(void)
{
	char line[1024], *word[8], *rest;

	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANON, -1, 0);
	if (counts == MAP_FAILED)
		return 1;
	for (int s = 1; s <= SIGUSR2; s++)
		if (s != SIGCHLD)
			signal(s, SIG_IGN);
	printf("ready %d\n", getpid());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		memset(word, 0, sizeof(word));
		rest = line;
		for (int n = 0; n < 7 && (word[n] = strtok(rest, " \n")); n++)
			rest = NULL;
		if (word[0] == NULL)
			continue;
		if (strcmp(word[0], "start") == 0) {
			memset(counts, 0, sizeof(*counts));
			background = child(word + 1);
			while (!counts->ready)
				usleep(100);
		} else if (strcmp(word[0], "counts") == 0)
			report();
		else if (strcmp(word[0], "stop") == 0) {
			counts->stop = 1;
			while (waitpid(background, NULL, WNOHANG) == 0)
				kill(background, SIGUSR1);
			report();
		} else
			waitpid(child(word), NULL, 0);
		printf(".\n");
		fflush(stdout);
	}
	return 0;
}
#else
int
main(void)
{
	return 1;
}
#endif
