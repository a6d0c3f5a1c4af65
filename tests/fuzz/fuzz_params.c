/* SPDX-License-Identifier: BSD-2-Clause */
/* libFuzzer target: whatever comes up the go pipe, the reader stays in its bounds. */
#include <stdlib.h>
#include <string.h>

#include "../../helper/helper.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int
LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	/* A copy of the exact size, so that one byte too far is seen. */
	unsigned char *copy = malloc(size ? size : 1);
	struct params p;
	volatile char sum = 0;

	if (copy == NULL)
		return 0;
	memcpy(copy, data, size);
	if (params_read(copy, size, &p) == 0) {
		if (p.uid == UINT32_MAX || p.gid == UINT32_MAX ||
		    p.flags & ~FLAG_ALL || p.label_len > LABEL_MAX)
			abort();
		for (size_t i = 0; i < p.label_len; i++)
			sum = (char)(sum + p.label[i]);
	}
	free(copy);
	return 0;
}
