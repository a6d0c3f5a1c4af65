/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * params_read() as a filter: length (four bytes) and record in, verdict out.
 * Each record lies in memory of exactly its size, so that the sanitizers see
 * every byte too many.  Built and fed by test_params.py.
 */
#include <stdio.h>
#include <stdlib.h>

#include "helper.h"

int
main(void)
{
	unsigned char head[4];

	while (fread(head, 1, sizeof(head), stdin) == sizeof(head)) {
		size_t len = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16;
		unsigned char *buf = malloc(len);
		struct params p;

		if ((buf == NULL && len > 0) || fread(buf, 1, len, stdin) != len)
			return 2;
		if (params_read(buf, len, &p) == 0) {
			printf("%u %u %u %u %u ", p.flags, p.target, p.uid, p.gid, p.label_kind);
			for (uint32_t i = 0; i < p.label_len; i++)
				printf("%02x", (unsigned char)p.label[i]);
			printf(".\n");
		} else
			printf("no\n");
		fflush(stdout);
		free(buf);
	}
	return 0;
}
