/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The helper forbids to be traced, and refuses to go on where it is.  Linked to
 * it with --wrap=procctl, this leaves out that one call, so that ktrace(1) sees
 * the others; nothing else of the helper is changed.
 */
#include <sys/types.h>
#include <sys/procctl.h>
#include <sys/wait.h>

int __real_procctl(idtype_t, id_t, int, void *);
int __wrap_procctl(idtype_t, id_t, int, void *);

int
__wrap_procctl(idtype_t type, id_t id, int command, void *data)
{
	return command == PROC_TRACE_CTL ? 0 :
					   __real_procctl(type, id, command, data);
}
