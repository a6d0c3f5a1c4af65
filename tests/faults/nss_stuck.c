/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A source of users and groups for nsswitch.conf(5) that does not answer about any name of
 * which it has been asked: it writes a line to FIFO, and hangs.  nss(5) has the interface.
 */
#include <fcntl.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <stddef.h>
#include <unistd.h>

static enum nss_status
hang(void)
{
	int fd = open(FIFO, O_WRONLY);

	if (fd >= 0 && write(fd, "stuck\n", 6) == 6)
		for (;;)
			pause();
	return NSS_STATUS_UNAVAIL;
}

enum nss_status
_nss_stuck_getpwnam_r(const char *name, struct passwd *result, char *buffer, size_t size,
    int *error)
{
	(void)name, (void)result, (void)buffer, (void)size, (void)error;
	return hang();
}

enum nss_status
_nss_stuck_getgrnam_r(const char *name, struct group *result, char *buffer, size_t size,
    int *error)
{
	(void)name, (void)result, (void)buffer, (void)size, (void)error;
	return hang();
}
