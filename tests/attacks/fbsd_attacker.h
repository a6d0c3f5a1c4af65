/* SPDX-License-Identifier: BSD-2-Clause */
/* The FreeBSD attacker: root of a jail. */
#ifndef FBSD_ATTACKER_H
#define FBSD_ATTACKER_H

#include <sys/types.h>

/* Shared by who is asked and who attacks. */
struct counts {
	volatile long attempts, seen, wins, stop, ready;
	char won[256];
};

extern struct counts *counts;

void flood(pid_t us, int number);
void bomb(long limit);
void chain(long length);
void watch_tree(void);
void kill_as(uid_t uid, pid_t pid, int number);

#endif
