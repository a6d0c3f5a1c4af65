/* SPDX-License-Identifier: BSD-2-Clause */
#include "helper.h"

static uint32_t
u32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	    (uint32_t)p[3] << 24;
}

int
params_read(const unsigned char *buf, size_t len, struct params *out)
{
	uint32_t kind, label_len;

	if (len < PARAMS_HEAD || u32(buf) != PARAMS_MAGIC)
		return -1;
	kind = (uint32_t)buf[20] | (uint32_t)buf[21] << 8;
	label_len = (uint32_t)buf[22] | (uint32_t)buf[23] << 8;
	/* Exact length: a short or a long record is another version's. */
	if (label_len > LABEL_MAX || len != PARAMS_HEAD + label_len)
		return -1;
	if (kind > LABEL_SELINUX || (kind == LABEL_NONE) != (label_len == 0))
		return -1;
	out->flags = u32(buf + 4);
	out->target = u32(buf + 8);
	out->uid = u32(buf + 12);
	out->gid = u32(buf + 16);
	out->label_kind = kind;
	out->label_len = label_len;
	out->label = (const char *)buf + PARAMS_HEAD;
	/* -1 means "leave as it is" to setresuid(2): never let it through. */
	if (out->flags & ~FLAG_ALL || out->uid == UINT32_MAX ||
	    out->gid == UINT32_MAX)
		return -1;
	return 0;
}
