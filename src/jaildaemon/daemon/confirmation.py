# SPDX-License-Identifier: BSD-2-Clause
"""From a container that an engine tells of to this very container, held; or why not."""

from collections.abc import Callable

from jaildaemon.backends import trust
from jaildaemon.backends.base import Backend, Jail, OursToo
from jaildaemon.daemon.names import resolved
from jaildaemon.engines import Engine
from jaildaemon.engines.answers import Found, Stopped
from jaildaemon.engines.endpoint import EngineError
from jaildaemon.errors import JaildaemonError


def confirm(
    backend: Backend,
    engine: Engine,
    found: Found,
    answer: Callable[[Jail | None, str | EngineError], None],
) -> None:
    """Give this very container, or None and why not.

    First its init is held, and shown to be the container's.  Then the engine is asked
    again: if it still says the same, what is held was its init when it said so, and no
    later process.
    """
    jail = resolved(backend, str(found.pid))
    if isinstance(jail, JaildaemonError):
        host = isinstance(jail, OursToo)
        why = "it was started with --pid=host: it shares the host's PID namespace"
        answer(None, why if host else jail.why)
        return
    held = jail
    doubt = _doubt(engine, found, held)
    if doubt is not None:
        held.close()
        answer(None, doubt)
        return

    def again(second: Found | Stopped | EngineError | None) -> None:
        if second == found and held.alive():
            answer(held, "")
            return
        held.close()
        ended = "it ended, or was replaced, while it was looked at"
        answer(None, second if isinstance(second, EngineError) else ended)

    engine.lookup(found.name, again)


def _doubt(engine: Engine, found: Found, held: Jail) -> str | None:
    if held.number != found.pid:
        return f"it shares the PID namespace of another container, whose init is {held.number}"
    try:
        return engine.doubt(found, held)
    except OSError as error:
        return f"its control groups cannot be read: {error.strerror}"


def vet(path: str) -> str | None:
    """Say why a program is not to be started by root: others can change it, or a link to it."""
    try:
        trust.check_program(path)
    except trust.Untrusted as error:
        return error.fault if error.place == path else f"is in {error.place}, which {error.fault}"
    except OSError as error:
        return f"cannot be examined: {error.strerror}"
    return None
