# SPDX-License-Identifier: BSD-2-Clause
"""The methods of org.jaildaemon, and the rules they work on."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from jaildaemon import __version__
from jaildaemon.backends.base import Backend, Jail, Peer
from jaildaemon.core import wire
from jaildaemon.core.fleet import Fleet, Member
from jaildaemon.core.lifecycle import Phase
from jaildaemon.daemon import schema
from jaildaemon.daemon.keeper import Keeper, Log
from jaildaemon.errors import JaildaemonError, NotPermitted, Refused

Parameters = dict[str, object]
Answer = Callable[[Parameters | JaildaemonError], None]
"""Called once: with the reply's parameters, or with the error."""

DESCRIPTION = Path(__file__).parent.parent / "org.jaildaemon.varlink"
SERVICE_DESCRIPTION = Path(__file__).parent.parent / "org.varlink.service.varlink"


def stamp(seconds: float | None) -> str | None:
    """Return a time as RFC 3339 UTC with milliseconds."""
    if seconds is None:
        return None
    when = datetime.fromtimestamp(seconds, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _present(parameters: Parameters) -> Parameters:
    """Leave out what is absent: a ?type of varlink."""
    return {name: value for name, value in parameters.items() if value is not None}


class Call:
    """One call: who asks, and where the answer goes.  `hung_up` is set by the caller's end."""

    def __init__(self, peer: Peer, answer: Answer) -> None:
        self.peer, self.answer = peer, answer
        self.hung_up: Callable[[], None] = lambda: None
        self.oneway = False


class Methods:
    """Every rule's keeper, and what the control socket may ask of them."""

    def __init__(self, backend: Backend, log: Log) -> None:
        self._backend, self._log = backend, log
        self._started = time.time()
        self.fleet = Fleet(f"{int(self._started * 1000):x}-{os.getpid()}")
        self._keepers: dict[str, Keeper] = {}
        self._jails: dict[str, Jail] = {}
        self._waiting: list[Callable[[], bool]] = []
        """Answers that wait for a change; each says whether it has been given."""
        self._table: dict[str, tuple[type, Callable[..., None]]] = {
            f"{wire.SERVICE}.GetInfo": (schema.Nothing, self.get_info),
            f"{wire.SERVICE}.GetInterfaceDescription": (
                schema.GetInterfaceDescription,
                self.get_interface_description,
            ),
            f"{wire.INTERFACE}.Attach": (schema.Attach, self.attach),
            f"{wire.INTERFACE}.Detach": (schema.Detach, self.detach),
            f"{wire.INTERFACE}.List": (schema.List, self.list_rules),
            f"{wire.INTERFACE}.Status": (schema.Nothing, self.status),
        }

    def call(self, method: str, parameters: object, call: Call) -> None:
        """Carry out `method`, which is in the access table; BadParameter."""
        cls, function = self._table[method]
        wish: object = schema.structure(parameters, cls)
        try:
            if wire.ACCESS[method] != "any" and call.peer.uid != os.geteuid():
                raise NotPermitted(method, f"uid {call.peer.uid}", "only root may do this")
            function(wish, call)
        except JaildaemonError as error:
            call.answer(error)

    # --- org.varlink.service -------------------------------------------------

    def get_info(self, _: schema.Nothing, call: Call) -> None:
        """Answer the test command: who we are."""
        call.answer(
            {
                "vendor": "jaildaemon",
                "product": "jaildaemon",
                "version": __version__,
                "url": "",
                "interfaces": [wire.SERVICE, wire.INTERFACE],
            }
        )

    def get_interface_description(self, wish: schema.GetInterfaceDescription, call: Call) -> None:
        """Answer with the interface's own text."""
        files = {wire.INTERFACE: DESCRIPTION, wire.SERVICE: SERVICE_DESCRIPTION}
        if wish.interface not in files:
            raise schema.BadParameter("interface")
        call.answer({"description": files[wish.interface].read_text(encoding="ascii")})

    # --- org.jaildaemon --------------------------------------------------------

    def attach(self, wish: schema.Attach, call: Call) -> None:
        """Arm a probe; the answer comes when it is armed."""
        policy = (wish.policy or schema.PolicyWish()).policy()
        fresh = self._backend.resolve(wish.jail)
        jail = self._jails.setdefault(fresh.key, fresh)
        if jail is not fresh:
            fresh.close()
        try:
            old = self.fleet.of_jail(jail.key)
            member = self.fleet.add(wish.jail, jail.key, wish.title, wish.command, policy)
        except JaildaemonError:
            self._forget_jail(jail.key)
            raise
        keeper = Keeper(self._backend, self.fleet, member, jail, self._log, self._changed)
        self._keepers[member.rule.id] = keeper
        self._log(f"{member.rule.id}: asked for by uid {call.peer.uid} pid {call.peer.pid}")
        # Nobody would know of the rule: do not leave it behind.
        call.hung_up = keeper.detach
        replaced = [m for m in old if wish.replace and m.rule.title == wish.title]

        def armed_or_not() -> bool:
            if member.life.phase in (Phase.NEW, Phase.WITHDRAWING):
                return False
            if keeper.error:
                call.answer(keeper.error)
                return True
            call.hung_up = lambda: None
            pid = keeper.probe_pid or 0
            answer = {"id": member.rule.id, "probe_pid": pid}
            self._withdraw(replaced, lambda: call.answer(answer))
            return True

        self._waiting.append(armed_or_not)
        keeper.start()

    def detach(self, wish: schema.Detach, call: Call) -> None:
        """Withdraw rules; the answer comes when their probes are gone."""
        if wish.all:
            members = list(self.fleet.members.values())
        elif wish.rule is not None:
            members = [self.fleet.find(wish.rule, "detach")]
        elif wish.jail is not None:
            members = self._of_jail(wish.jail, wish.title)
        else:
            raise Refused("detach", "", "name a rule, a jail, or all")
        ids = [member.rule.id for member in members]
        self._withdraw(members, lambda: call.answer({"ids": ids}))

    def list_rules(self, wish: schema.List, call: Call) -> None:
        """Answer with every rule, or those of one jail."""
        members = self.fleet.members.values() if wish.jail is None else self._of_jail(wish.jail)
        call.answer({"rules": [self._rule(member) for member in members]})

    def status(self, _: schema.Nothing, call: Call) -> None:
        """Answer with the counts."""
        fleet = self.fleet
        call.answer(
            {
                "version": __version__,
                "pid": os.getpid(),
                "uptime_seconds": round(time.time() - self._started, 3),
                "rules": len(fleet.members),
                "probes": fleet.count(Phase.ARMED),
                "running": fleet.runs,
                "queued": 0,
                "triggers": fleet.triggers,
                "refused": fleet.refused,
                "warnings": [],
            }
        )

    # --- the keepers -------------------------------------------------------------

    def withdraw_all(self, done: Callable[[], None]) -> None:
        """Withdraw every rule; `done` when no probe is left.  Runs go on."""
        self._withdraw(list(self.fleet.members.values()), done)

    def _withdraw(self, members: list[Member], done: Callable[[], None]) -> None:
        def gone() -> bool:
            if any(member.life.phase is not Phase.GONE for member in members):
                return False
            done()
            return True

        self._waiting.append(gone)
        for member in members:
            keeper = self._keepers.get(member.rule.id)
            if keeper is not None:
                keeper.detach()
        self._answer_waiting()

    def _changed(self, keeper: Keeper) -> None:
        if keeper.member.life.over and keeper.member.rule.id in self._keepers:
            del self._keepers[keeper.member.rule.id]
            self._forget_jail(keeper.jail.key)
        self._answer_waiting()

    def _answer_waiting(self) -> None:
        # An answer may itself make another wait: look at each of today's once.
        waiting, self._waiting = self._waiting, []
        rest = [given for given in waiting if not given()]
        self._waiting = rest + self._waiting

    def _forget_jail(self, key: str) -> None:
        if not self.fleet.of_jail(key):
            self._jails.pop(key).close()

    def _of_jail(self, jail: str, title: str | None = None) -> list[Member]:
        """Return the rules of a jail, by what it was called at -j, its name or number."""
        return [
            m
            for m in self.fleet.members.values()
            if jail in self._names(m) and (title is None or m.rule.title == title)
        ]

    def _names(self, member: Member) -> tuple[str, str, str]:
        known = self._jails[member.jail_key]
        return member.rule.jail, known.name, str(known.number)

    def _rule(self, member: Member) -> Parameters:
        keeper, rule = self._keepers[member.rule.id], member.rule
        policy = {
            "respawn": rule.policy.respawn.value,
            "uid": rule.policy.uid,
            "gid": rule.policy.gid,
        }
        overlaps = [other.rule.id for other in self.fleet.overlapping(member)]
        warning = f"pkill -f may ring {', '.join(overlaps)} too" if overlaps else None
        return _present(
            {
                "id": rule.id,
                "jail": rule.jail,
                "jid": keeper.jail.number,
                "title": rule.title,
                "command": rule.command,
                "policy": policy,
                "source": rule.source,
                "state": member.shown.value,
                "reason": member.reason or warning,
                "probe_pid": keeper.probe_pid,
                "armed_at": stamp(member.armed_at),
                "last_trigger": stamp(member.last_trigger),
                "next_arming": stamp(member.retry_at),
                "triggers": member.triggers,
                "refused": member.refused,
            }
        )
