/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Serves its standard input, a command a line, as PID 1 of a jail.  Each
 * command is carried out by a child: "start" leaves it to work until "stop".
 */
#include "attacker.h"

#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct counts *counts;
static pid_t background;

void
say(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(1, line, (size_t)n) != n)
		_exit(1);
}

int
try_it(const char *name, long result)
{
	size_t used = strlen(counts->won);

	counts->attempts++;
	if (result < 0)
		return 0;
	counts->wins++;
	if (strstr(counts->won, name) == NULL &&
	    used + strlen(name) + 2 < sizeof(counts->won)) {
		strcat(counts->won, used ? "," : "");
		strcat(counts->won, name);
	}
	return 1;
}

/* Blocked in every child, so that it waits for who waits for it. */
void
wait_stop(void)
{
	sigset_t set;
	int which;

	sigemptyset(&set);
	sigaddset(&set, STOP_SIGNAL);
	while (!counts->stop)
		sigwait(&set, &which);
}

static void
report(void)
{
	say("attempts=%ld seen=%ld wins=%ld won=%s", counts->attempts,
	    counts->seen, counts->wins, counts->won);
}

/* Processes until there is no more room, each of them kept. */
static void
bomb(long limit)
{
	long made = 0;
	int error = 0;

	while (made < limit) {
		pid_t pid = fork();

		if (pid == 0) {
			pause();
			_exit(0);
		}
		if (pid < 0) {
			error = errno;
			break;
		}
		made++;
	}
	counts->attempts = made;
	counts->wins = error;
	counts->ready = 1;
	/*
	 * What is killed is replaced at once; and no more than that, or it would be
	 * the whole host that has no process left, the other tests included.
	 */
	while (!counts->stop)
		if (waitpid(-1, NULL, WNOHANG) <= 0)
			usleep(1000);
		else if (fork() == 0)
			pause();
}

/* The tree of the jail is mined: whatever is opened in it is seen. */
static void
watch_tree(void)
{
	static const char *const places[] = { "/", "/lib", "/lib64", "/etc",
		"/dev", "/proc", "/usr", "/bin", "/usr/lib" };
	char events[4096];
	int fd = inotify_init1(IN_NONBLOCK);

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (inotify_add_watch(fd, places[i], IN_OPEN | IN_ACCESS) >= 0)
			counts->attempts++;
	counts->ready = 1;
	wait_stop();
	while (read(fd, events, sizeof(events)) > 0)
		counts->wins++;
}

/* Takes every number that comes next, so that the jail's numbers go round. */
static void
churn(long times)
{
	for (long i = 0; i < times; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid > 0) {
			counts->attempts++;
			waitpid(pid, NULL, 0);
		}
	}
	report();
}

/* The signal to all, and to each again as soon as it is there. */
static void
flood(int number)
{
	counts->ready = 1;
	while (!counts->stop) {
		kill(-1, number);
		counts->attempts++;
	}
}

/* Without any right but a user's. */
static void
kill_as(uid_t uid, pid_t pid, int number)
{
	if (setgid(uid) != 0 || setuid(uid) != 0)
		say("setuid: %s", strerror(errno));
	else
		say("%s", kill(pid, number) ? strerror(errno) : "ok");
}

static void
call_control(const char *path, const char *root)
{
	static const char attach[] = "{\"method\":\"org.jaildaemon.Attach\","
	    "\"parameters\":{\"jail\":\"1\",\"command\":\"true\"}}";
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char answer[4096];
	ssize_t n;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	counts->attempts++;
	if (root != NULL && (chroot(root) != 0 || chdir("/") != 0)) {
		say("chroot: %s", strerror(errno));
		return;
	}
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0) {
		say("connect: %s", strerror(errno));
		return;
	}
	/* It may be refused and closed before it is read. */
	send(fd, attach, sizeof(attach), MSG_NOSIGNAL);
	n = recv(fd, answer, sizeof(answer) - 1, 0);
	answer[n > 0 ? n : 0] = '\0';
	say("answer %s", answer);
	close(fd);
}

/* A PID namespace in ours, whose first process would like to be somebody. */
static void
nest(void)
{
	pid_t pid;

	if (unshare(CLONE_NEWPID) != 0) {
		say("unshare: %s", strerror(errno));
		return;
	}
	pid = fork();
	if (pid == 0) {
		counts->ready = 1;
		pause();
		_exit(0);
	}
	wait_stop();
	kill(pid, SIGKILL);
}

static void
carry_out(char **word)
{
	pid_t pid = word[1] ? atoi(word[1]) : 0;

	if (strcmp(word[0], "race") == 0)
		race();
	else if (strcmp(word[0], "look") == 0)
		look(pid);
	else if (strcmp(word[0], "nuisance") == 0)
		nuisance(pid);
	else if (strcmp(word[0], "overwrite") == 0)
		overwrite(pid);
	else if (strcmp(word[0], "hold") == 0)
		hold(pid);
	else if (strcmp(word[0], "inject") == 0)
		inject(pid, atol(word[2]), atol(word[3]), 0);
	else if (strcmp(word[0], "suspend") == 0)
		inject(pid, atol(word[2]), atol(word[3]), 1);
	else if (strcmp(word[0], "scan") == 0)
		scan(pid, word[2]);
	else if (strcmp(word[0], "image") == 0)
		image(pid, word[2]);
	else if (strcmp(word[0], "breed") == 0)
		breed(atol(word[1]));
	else if (strcmp(word[0], "bomb") == 0)
		bomb(atol(word[1]));
	else if (strcmp(word[0], "churn") == 0)
		churn(atol(word[1]));
	else if (strcmp(word[0], "flood") == 0)
		flood(atoi(word[1]));
	else if (strcmp(word[0], "kill-as") == 0)
		kill_as((uid_t)pid, atoi(word[2]), atoi(word[3]));
	else if (strcmp(word[0], "watch") == 0)
		watch_tree();
	else if (strcmp(word[0], "nest") == 0)
		nest();
	else if (strcmp(word[0], "call") == 0)
		call_control(word[1], word[2]);
	else if (strcmp(word[0], "kill") == 0)
		say("%s", kill(pid, atoi(word[2])) ? strerror(errno) : "ok");
	else if (strcmp(word[0], "reboot") == 0)
		say("reboot: %s",
		    reboot(pid ? RB_POWER_OFF : RB_AUTOBOOT) ? strerror(errno) :
							       "?");
	else
		say("what is %s?", word[0]);
}

static pid_t
child(char **word)
{
	sigset_t set;
	pid_t pid = fork();

	if (pid == 0) {
		/* A broadcast must not end who sends it, nor who attacks. */
		for (int s = 1; s < 32; s++)
			signal(s, s == SIGCHLD ? SIG_DFL : SIG_IGN);
		sigemptyset(&set);
		sigaddset(&set, STOP_SIGNAL);
		sigprocmask(SIG_BLOCK, &set, NULL);
		carry_out(word);
		_exit(0);
	}
	return pid;
}

static void
command(char **word)
{
	pid_t pid;

	if (strcmp(word[0], "start") == 0) {
		memset(counts, 0, sizeof(*counts));
		background = child(word + 1);
		while (!counts->ready && waitpid(background, NULL, WNOHANG) == 0)
			sched_yield();
	} else if (strcmp(word[0], "counts") == 0)
		report();
	else if (strcmp(word[0], "stop") == 0) {
		counts->stop = 1;
		kill(background, STOP_SIGNAL);
		while (waitpid(background, NULL, 0) < 0 && errno == EINTR)
			continue;
		report();
	} else {
		/* Counters are one command's, unless an attack is under way. */
		pid = child(word);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
	say(".");
}

int
main(void)
{
	char line[4096], *word[8], *rest;
	int n;

	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		return 1;
	setvbuf(stdin, NULL, _IONBF, 0);
	say("ready");
	while (fgets(line, sizeof(line), stdin) != NULL) {
		memset(word, 0, sizeof(word));
		rest = line;
		for (n = 0; n < 7 && (word[n] = strtok(rest, " \n")); n++)
			rest = NULL;
		if (word[0] != NULL)
			command(word);
		while (background == 0 && waitpid(-1, NULL, WNOHANG) > 0)
			continue;
	}
	return 0;
}
