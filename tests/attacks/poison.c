/* SPDX-License-Identifier: BSD-2-Clause */
/* A library for LD_PRELOAD: whoever is started with it adds its name to a file. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((constructor)) static void
loaded(int argc, char **argv)
{
	const char *path = getenv("POISON_TOLD");
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0666) : -1;

	if (fd < 0 || argc < 1)
		return;
	if (write(fd, argv[0], strlen(argv[0])) < 0 || write(fd, "\n", 1) < 0)
		_exit(1);
	close(fd);
}
