/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the daemon and the helper say to each other.  The Python side is
 * src/jaildaemon/backends/base.py; tests/helper/test_numbers.py compares.
 *
 * The daemon starts the helper with four descriptors and no environment:
 *   3  status, write end: records go up
 *   4  go, read end: a parameter record (Linux: one for each stage), later one
 *      byte 'G'
 *   5  Linux: pidfd of the jail's init.
 *   6  Linux: the jail's own sealed image of this program, for stage 2.
 *   7  Linux: the jail's user namespace, where it has one of its own.
 */
#ifndef JAILDAEMON_HELPER_H
#define JAILDAEMON_HELPER_H

#include <stddef.h>
#include <stdint.h>

#define FD_STATUS 3
#define FD_GO 4
#define FD_JAIL 5
#define FD_IMAGE 6
#define FD_USERNS 7

#define PROBE_NAME "jailprobe"

/* Status records: eight bytes, one write(2) each, little endian. */
#define RECORD_PID 'P'   /* value: the probe's pid as the daemon sees it */
#define RECORD_READY 'R' /* the probe waits for 'G' */
#define RECORD_ERROR 'E' /* step failed, value: errno */

struct record {
	uint8_t kind;
	uint8_t step;
	uint16_t zero;
	int32_t value;
};

/* Every step that can fail.  Numbers are kept for good: they are logged. */
enum step {
	STEP_PARAMS = 1,    /* reading the parameter record */
	STEP_SIGNALS = 2,   /* blocking and resetting signals */
	STEP_CLOSE = 3,     /* closing descriptors */
	STEP_CHDIR = 4,     /* chdir("/") on the host */
	STEP_SESSION = 5,   /* setsid */
	STEP_RLIMIT = 6,    /* RLIMIT_CORE and RLIMIT_NPROC */
	STEP_KEYRING = 7,   /* a session keyring of its own */
	STEP_DUMPABLE = 8,  /* PR_SET_DUMPABLE 0 */
	STEP_LABEL = 9,     /* the jail's LSM label */
	STEP_GROUPS = 10,   /* setgroups(0) */
	STEP_ENTER = 11,    /* setns by the pidfd, or jail_attach */
	STEP_CAPS = 12,     /* capabilities and securebits */
	STEP_GID = 13,      /* setresgid */
	STEP_UID = 14,      /* setresuid */
	STEP_EXEC = 15,     /* the sealed image */
	STEP_NNP = 16,      /* no_new_privs */
	STEP_SECCOMP = 17,  /* the first filter */
	STEP_CLONE = 18,    /* the probe's birth */
	STEP_DEATHSIG = 19, /* death with the daemon */
	STEP_NAME = 20,     /* the probe's p_comm */
	STEP_SANDBOX = 21,  /* the probe's own filter, or capability mode */
	STEP_UNTRACE = 22,  /* PROC_TRACE_CTL */
	STEP_USERNS = 23    /* setns by the user namespace, after the exec */
};

/* The parameter record: PARAMS_HEAD bytes, little endian, then the label. */
#define PARAMS_MAGIC 0x3150444aU /* "JDP1" */
#define PARAMS_HEAD 24
#define LABEL_MAX 1000

#define FLAG_KEEP_GROUPS 2U /* Linux: this user namespace denies setgroups */
#define FLAG_AT_ONCE 4U     /* Linux: join the user namespace before the exec */
#define FLAG_ALL 6U

enum label_kind { LABEL_NONE = 0, LABEL_APPARMOR = 1, LABEL_SELINUX = 2 };

struct params {
	uint32_t flags;
	uint32_t target; /* FreeBSD: jid.  Linux: CLONE_NEW* flags to join. */
	uint32_t uid;    /* as seen in the jail */
	uint32_t gid;
	uint32_t label_kind;
	uint32_t label_len;
	const char *label; /* into the caller's buffer, not terminated */
};

/*
 * Reads one parameter record.  0, or -1 where anything is not as it must be.
 * Makes no system call and touches no memory but its two arguments'.
 */
int params_read(const unsigned char *buf, size_t len, struct params *out);

#endif
