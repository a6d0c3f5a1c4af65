/* SPDX-License-Identifier: BSD-2-Clause */
/* The Linux attacker: root of a jail, its first process, and what it is told to try. */
#ifndef ATTACKER_H
#define ATTACKER_H

#define _GNU_SOURCE
#include <sys/types.h>

/* Shared by the first process and the one that attacks. */
struct counts {
	volatile long attempts; /* calls that would have won, had they worked */
	volatile long seen;     /* targets that were there when attacked */
	volatile long wins;
	volatile long stop;     /* set from outside: end, and let go */
	volatile long ready;    /* the attack is under way */
	char won[256];          /* by which calls, the first ones */
};

extern struct counts *counts;

#define STOP_SIGNAL 60 /* from the first process only */

/* Every answer is a line; the last one of a command is ".". */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Notes one try: a result of 0 or more is a win unless said otherwise. */
int try_it(const char *name, long result);

/* Returns when the first process says so. */
void wait_stop(void);

void race(void);
void look(pid_t pid);
void nuisance(pid_t pid);
void overwrite(pid_t pid);
void hold(pid_t pid);
void inject(pid_t pid, long number, long argument, int suspend);
void scan(pid_t pid, const char *secret);
void image(pid_t pid, const char *how);
void breed(long children);

/* Has a process that we trace clone siblings; returns how many. */
long clone_by(pid_t pid, long children);

#endif
