# SPDX-License-Identifier: BSD-2-Clause
"""Reload: the files with rules are read anew, and the users and groups in them looked up."""

from collections.abc import Callable
from typing import Protocol

from jaildaemon.core.config import Configuration
from jaildaemon.core.fleet import Member
from jaildaemon.daemon import schema
from jaildaemon.daemon.accounts import Found
from jaildaemon.daemon.barrier import unforeseen
from jaildaemon.daemon.call import Answer, Call, Parameters
from jaildaemon.daemon.config import names
from jaildaemon.daemon.hub import Hub
from jaildaemon.errors import JaildaemonError

Read = Callable[[], Configuration]
"""Reads the files anew; BadConfiguration."""
OpenTo = Callable[[Configuration, Found], None]
"""Lets the readers that the files name connect."""


class Methods(Protocol):
    """What withdraws rules, and gives answers later."""

    def withdraw(self, members: list[Member], done: Callable[[], None]) -> None:
        """Withdraw rules; `done` when none of them has a probe."""

    def wait_for(self, given: Callable[[], bool]) -> None:
        """Call `given` now and after every change, until it says that it has answered."""


class Reloading:
    """Every reload of a daemon."""

    def __init__(self, methods: Methods, hub: Hub, read: Read, open_to_readers: OpenTo) -> None:
        self._methods, self._hub = methods, hub
        self.read, self._open_to_readers = read, open_to_readers
        self._calls: list[Call] = []

    def reload(self, _: schema.Nothing, call: Call) -> None:
        """Take the files as they are now, or none; calls that come together are one."""
        self._calls.append(call)
        if len(self._calls) == 1:
            self._hub.backend.watcher.call_in(0, self._once)

    def _once(self) -> None:
        """Reload; answers when what was removed is gone."""
        calls, self._calls = self._calls, []

        def answer(result: Parameters | JaildaemonError) -> None:
            for call in calls:
                call.answer(result)

        try:
            self._read_for(answer)
        except JaildaemonError as error:
            answer(error)
        except Exception as error:  # noqa: BLE001 - of a reload, whatever it is
            answer(unforeseen(self._hub.log, "reload", error))

    def _read_for(self, give: Answer) -> None:
        made = self.read()

        def found(result: Found) -> None:
            try:
                self._loaded(made, result, give)
            except JaildaemonError as error:
                give(error)
            except Exception as error:  # noqa: BLE001 - as above
                give(unforeseen(self._hub.log, "reload", error))

        self._hub.look_up(*names(made), found)

    def _loaded(self, made: Configuration, found: Found, give: Answer) -> None:
        hub, roster = self._hub, self._hub.roster
        if hub.ending:
            return
        self._open_to_readers(made, found)
        before = roster.configuration
        added, withdrawn, kept = roster.load(made)
        hub.looked_up(found)
        removed = roster.removed_names(before)
        hub.log.info(f"reloaded: {len(added)} added, {len(removed)} removed, {kept} kept")
        answer: Parameters = {"added": added, "removed": removed, "kept": kept}

        def without_users() -> bool:
            """Answer when no rule whose user is gone has a probe any more."""
            if any(keeper.distrusted for keeper in hub.keepers.values()):
                return False
            give(answer)
            return True

        self._methods.withdraw(withdrawn, lambda: self._methods.wait_for(without_users))
