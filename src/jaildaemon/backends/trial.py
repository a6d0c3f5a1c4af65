# SPDX-License-Identifier: BSD-2-Clause
"""Whether a program of ours can be started on this machine, found by starting it."""

import os

from jaildaemon.backends import Program

NOT_STARTED = 127
"""The status of a child that could not become its program, as a shell's."""
HINT = "it, or the C library it needs, is another system's: build it here, with make install"


def trial(program: Program) -> str | None:
    """Start it with words that no program of ours knows, at which each ends; say why it failed."""
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        pid = program.start([program.path.name, "try", "it"], quiet)
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0 or status == NOT_STARTED:
        return f"cannot be started: it ended with {status}"
    return None
