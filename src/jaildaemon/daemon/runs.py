# SPDX-License-Identifier: BSD-2-Clause
"""Running a rule's command on the host.

Nothing from the jail is in it: the command is the administrator's, the
environment is built here, and no value in it was chosen inside.
"""

import functools
import os
import pwd
import subprocess
from collections.abc import Callable

from jaildaemon.backends.base import Backend, Death

PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


@functools.cache
def _home() -> str:
    # Once: it may ask a directory server, and the daemon waits for none.
    return pwd.getpwuid(os.getuid()).pw_dir


def environment(values: dict[str, str]) -> dict[str, str]:
    """Return the command's whole environment: four fixed values, and JAILDAEMON_*."""
    return {
        "PATH": PATH,
        "HOME": _home(),
        "LANG": "C.UTF-8",
        **{f"JAILDAEMON_{name}": value for name, value in values.items()},
    }


def start(
    backend: Backend, command: str, values: dict[str, str], ended: Callable[[Death], None]
) -> int:
    """Start `command` by sh(1) in a session of its own; return its pid.

    `ended` is called when the shell itself has ended.  OSError where it cannot
    be started.
    """
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=environment(values),
        start_new_session=True,
        umask=0o022,
    )

    def reaped(death: Death) -> None:
        # The watcher has reaped it: subprocess must not try to.
        process.returncode = death.status if death.signal is None else -death.signal
        ended(death)

    backend.watcher.watch_process(process.pid, reaped)
    backend.restore_limits(process.pid)
    return process.pid
