# SPDX-License-Identifier: BSD-2-Clause
"""Whether the daemon's files are still its own: the names of journal, socket, lock and pidfile.

Somebody may remove or replace them while it runs.  What is found is a warning of
Status; the journal heals with the next record, the others with a reload by SIGHUP.
"""

import errno
import os
from typing import TYPE_CHECKING

from jaildaemon.daemon.files import ControlSocket, Held, Locked, LockedFile
from jaildaemon.daemon.journal import Journal
from jaildaemon.daemon.logs import Logger
from jaildaemon.errors import JaildaemonError, Refused

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class Upkeep:
    """Looks after what a daemon holds; `listen` is told of a socket made anew."""

    def __init__(self, held: Held, journal: Journal, log: Logger) -> None:
        self._held, self._journal, self._log = held, journal, log
        self.listen: Callable[[socket.socket], None] = lambda _: None
        journal.remake = self._remake_state

    def warnings(self) -> list[str]:
        """Look at each name; return what is not as it was, for Status."""
        found = []
        try:
            self._journal.stay()
        except OSError as error:
            path = self._held.state.path
            found.append(f"the journal in {path} cannot be begun anew: {error.strerror}")
        if self._journal.moved is not None:
            found.append(f"{self._journal.moved} (a reload takes this warning away)")
        renew = f"kill -HUP {os.getpid()} makes it again"
        control, pidfile = self._held.control, self._held.pidfile
        if not control.in_place():
            found.append(f"the socket {control.path} was removed or replaced: {renew}")
        found += [
            f"{file.path} was removed or replaced: {renew}"
            for file in (control.lock, pidfile)
            if not file.in_place()
        ]
        return found

    def mend(self) -> None:
        """Make again what is gone; what cannot be made is logged."""
        try:
            self._journal.stay()
            self._journal.moved = None
        except OSError as error:
            self._log.error(f"the journal cannot be begun anew: {error.strerror}")
        # The lock first: under it all else is made.
        control = self._held.control
        if self._mend(control.lock) and self._mend(control):
            self._mend(self._held.pidfile)

    def _mend(self, thing: LockedFile | ControlSocket) -> bool:
        if thing.in_place():
            return True
        try:
            thing.renew()
        except Locked:
            self._log.error(f"{thing.path} was removed, and another daemon has it now")
            return False
        except JaildaemonError as error:
            self._log.error(f"{thing.path} was removed, and cannot be made again: {error.why}")
            return False
        self._log.warning(f"{thing.path} was removed or replaced: it was made again")
        if isinstance(thing, ControlSocket):
            self.listen(thing.listener)
        return True

    def _remake_state(self) -> None:
        if self._held.state.in_place():
            return
        try:
            self._held.state.renew()
        except Refused as error:
            raise OSError(errno.EIO, error.why) from error
