# SPDX-License-Identifier: BSD-2-Clause
"""The methods of org.jaildaemon, and the rules they work on."""

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from jaildaemon import __version__
from jaildaemon.backends.base import Jail
from jaildaemon.core import breaker, wire
from jaildaemon.core.config import Configuration
from jaildaemon.core.entries import stamp
from jaildaemon.core.fleet import Member
from jaildaemon.core.lifecycle import Phase
from jaildaemon.core.rules import Policy
from jaildaemon.core.text import shown
from jaildaemon.daemon import schema
from jaildaemon.daemon.barrier import unforeseen
from jaildaemon.daemon.call import Call, Parameters
from jaildaemon.daemon.hub import Hub
from jaildaemon.daemon.inquiry import Inquiry, warnings
from jaildaemon.daemon.logs import log_all
from jaildaemon.daemon.orders import Orders
from jaildaemon.daemon.reload import OpenTo, Read, Reloading
from jaildaemon.daemon.roster import ABSENT
from jaildaemon.errors import JaildaemonError, NotPermitted, Refused

DESCRIPTION = Path(__file__).parent.parent / "org.jaildaemon.varlink"
SERVICE_DESCRIPTION = Path(__file__).parent.parent / "org.varlink.service.varlink"


def _present(parameters: Parameters) -> Parameters:
    """Leave out what is absent: a ?type of varlink."""
    return {name: value for name, value in parameters.items() if value is not None}


Restart = Callable[[Callable[[JaildaemonError | None], None]], None]


class Methods:
    """What the control socket may ask of the hub."""

    def __init__(
        self,
        hub: Hub,
        restart: Restart,
        reload: Read = Configuration,
        open_to_readers: OpenTo = lambda _made, _found: None,
    ) -> None:
        self._hub, self._restart = hub, restart
        self.reloading = Reloading(self, hub, reload, open_to_readers)
        self.fleet = hub.fleet
        files = {wire.INTERFACE: DESCRIPTION, wire.SERVICE: SERVICE_DESCRIPTION}
        # Now: an upgrade takes our files away.
        self._descriptions = {name: x.read_text(encoding="ascii") for name, x in files.items()}
        hub.changed = self._changed
        self._waiting: list[Callable[[], bool]] = []
        """Answers that wait for a change; each says whether it has been given."""
        self._arming: dict[Member, Callable[[], bool]] = {}
        """Those that wait for one rule's first probe: there may be a thousand."""
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
            f"{wire.INTERFACE}.Restart": (schema.Nothing, self.restart),
            f"{wire.INTERFACE}.Reload": (schema.Nothing, self.reloading.reload),
            **Orders(self, hub).table,
            **Inquiry(self, hub).table,
        }

    def call(self, method: str, parameters: object, call: Call) -> None:
        """Carry out `method`, which is in the access table; BadParameter."""
        cls, function = self._table[method]
        wish: object = schema.structure(parameters, cls)
        try:
            allowed = wire.ACCESS[method] == "any" or call.peer.uid == os.geteuid()
            if wire.ACCESS[method] == "reader" and self._hub.roster.configuration.readers:
                # The kernel let them connect: the socket is root's and that group's.
                allowed = True
            if not allowed:
                raise NotPermitted(method, f"uid {call.peer.uid}", "only root may do this")
            function(wish, call)
        except JaildaemonError as error:
            call.answer(error)
        except schema.BadParameter:
            raise
        except Exception as error:  # noqa: BLE001 - of one call, whatever it is
            call.answer(unforeseen(self._hub.log, method.rpartition(".")[2].lower(), error))

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
        if wish.interface not in self._descriptions:
            raise schema.BadParameter("interface")
        call.answer({"description": self._descriptions[wish.interface]})

    # --- org.jaildaemon --------------------------------------------------------

    def attach(self, wish: schema.Attach, call: Call) -> None:
        """Arm a probe; the answer comes when it is armed."""
        policy = (wish.policy or schema.PolicyWish()).policy()
        hub = self._hub
        self._check_breaker(wish)
        waiting = [True]

        def hung_up() -> None:
            waiting[0] = False

        def found(jail: Jail | JaildaemonError) -> None:
            call.hung_up = lambda: None
            if isinstance(jail, JaildaemonError):
                call.answer(jail)
            elif not waiting[0] or hub.ending:
                hub.forget_jail(jail.key)
            else:
                try:
                    self._attach_to(jail, wish, policy, call)
                except JaildaemonError as error:
                    call.answer(error)

        call.hung_up = hung_up
        hub.find(wish.jail, found)

    def _attach_to(self, jail: Jail, wish: schema.Attach, policy: Policy, call: Call) -> None:
        hub = self._hub
        try:
            old = self.fleet.of_jail(jail.key)
            member = self.fleet.add(wish.jail, jail.key, wish.title, wish.command, policy)
        except JaildaemonError:
            hub.forget_jail(jail.key)
            raise
        keeper = hub.keep(member, jail)
        keeper.asked = f"asked for {call.who}"
        hub.log.info(keeper.asked, rule=member.rule)
        # Nobody would know of the rule: do not leave it behind.
        call.hung_up = lambda: hub.detach(member)
        same = [m for m in old if m.rule.title == wish.title and not m.rule.lasting]
        replaced = same if wish.replace else []

        def armed_or_not() -> bool:
            if member.life.phase in (Phase.NEW, Phase.WITHDRAWING):
                return False
            if keeper.error:
                call.answer(keeper.error)
                return True
            call.hung_up = lambda: None
            pid = keeper.probe_pid or 0
            answer = {"id": member.rule.id, "probe_pid": pid}
            if replaced:
                self.withdraw(replaced, lambda: call.answer(answer))
            else:
                call.answer(answer)
            return True

        self._arming[member] = armed_or_not
        keeper.arm()

    def _check_breaker(self, wish: schema.Attach) -> None:
        breaks = self._hub.journal.history.breaks
        key = breaker.key(wish.title, wish.command)
        seconds = breaker.broken(breaks, key, self._hub.now().wall)
        if seconds is not None:
            why = f"the host went down {breaker.MAX_BREAKS} times within an hour while it ran"
            hint = f"a loop is suspected; it may be asked for again in {seconds / 60:.0f} min"
            raise Refused("attach", f"title {shown(wish.title or '')}", why, hint)

    def detach(self, wish: schema.Detach, call: Call) -> None:
        """Withdraw rules; the answer comes when their probes are gone."""
        if wish.all:
            members = list(self.fleet.members.values())
        elif wish.rule is not None:
            members = [self.fleet.find(wish.rule, "detach")]
            if members[0].rule.lasting:
                why = f"is in {members[0].rule.source}"
                hint = "remove it there and reload, or hold it"
                raise Refused("detach", members[0].rule.id, why, hint)
        elif wish.jail is not None:
            members = self.of_jail(wish.jail, wish.title)
        else:
            raise Refused("detach", "", "name a rule, a jail, or all")
        # What is in a file stays as long as it is there.
        members = [member for member in members if not member.rule.lasting]
        ids = [member.rule.id for member in members]
        if ids:
            log_all(self._hub.log, [member.rule for member in members], f"withdrawn {call.who}")
        for member in members:
            if member.life.phase is not Phase.GONE:  # one that has ended has its reason
                member.reason = f"withdrawn {call.who}"
        self.withdraw(members, lambda: call.answer({"ids": ids}))

    def list_rules(self, wish: schema.List, call: Call) -> None:
        """Answer with every rule, or those of one jail."""
        members = self._shown() if wish.jail is None else self.of_jail(wish.jail)
        rules = [self.describe(member) for member in members]
        if wish.jail is None:
            rules += self._patterns()
        if call.peer.uid != os.geteuid():
            for rule in rules:
                del rule["command"]  # a reader sees that there is one
        call.answer({"rules": rules})

    def _shown(self) -> list[Member]:
        hidden = self._hub.roster.is_hidden
        return [member for member in self.fleet.members.values() if not hidden(member)]

    def status(self, _: schema.Nothing, call: Call) -> None:
        """Answer with the counts."""
        fleet, root = self.fleet, call.peer.uid == os.geteuid()
        state = {"state": str(self._hub.journal.directory)} if root else {}
        call.answer(
            {
                **state,
                "version": __version__,
                "pid": os.getpid(),
                "uptime_seconds": round(self._hub.now().steady - self._hub.started.steady, 3),
                "rules": len(self._shown()),
                "probes": fleet.count(Phase.ARMED),
                "running": fleet.running,
                "queued": fleet.queued,
                "triggers": fleet.triggers,
                "refused": fleet.refused,
                "warnings": warnings(self._hub, commands=call.peer.uid == os.geteuid()),
                **self._engines(),
            }
        )

    def _engines(self) -> Parameters:
        engines = self._hub.roster.names.engines()
        said = [_present({"name": n, "up": w is None, "reason": w}) for n, w in engines.items()]
        return {"engines": said} if said else {}

    def restart(self, _: schema.Nothing, call: Call) -> None:
        """Replace the program by exec; the answer comes just before, or says why not."""
        self._hub.log.info(f"restart asked for {call.who}")
        self._restart(lambda error: call.answer({} if error is None else error))

    # --- waiting for what was asked ------------------------------------------------

    def withdraw_all(self, done: Callable[[], None]) -> None:
        """Withdraw every rule; `done` when no probe is left.  Runs go on."""
        self.withdraw(list(self.fleet.members.values()), done)

    def withdraw(self, members: list[Member], done: Callable[[], None]) -> None:
        """Withdraw rules; `done` when none of them has a probe."""
        left = deque(members)

        def gone() -> bool:
            # Who is gone stays gone, and is not looked at with every event that follows.
            while left and left[0].life.phase is Phase.GONE:
                left.popleft()
            if left:
                return False
            done()
            return True

        for member in members:
            self._hub.detach(member)
        self.wait_for(gone)

    def wait_for(self, given: Callable[[], bool]) -> None:
        """Call `given` now and after every change, until it says that it has answered."""
        self._waiting.append(given)
        self._answer_waiting()

    def _changed(self, member: Member) -> None:
        given = self._arming.pop(member, None)
        if given is not None and not given():
            self._arming[member] = given
        if self._waiting:
            self._answer_waiting()

    def _answer_waiting(self) -> None:
        # An answer may itself make another wait: look at each of today's once.
        waiting, self._waiting = self._waiting, []
        rest = [given for given in waiting if not given()]
        self._waiting = rest + self._waiting

    def of_jail(self, jail: str, title: str | None = None) -> list[Member]:
        """Return the rules of a jail, by what it was called at -j, its name or number."""
        return [
            m
            for m in self.fleet.members.values()
            if jail in self._names(m) and (title is None or m.rule.title == title)
        ]

    def _names(self, member: Member) -> tuple[str, ...]:
        known = self._hub.jails.get(member.jail_key)
        mine = (member.rule.jail,)
        return mine if known is None else (*mine, known.name, str(known.number))

    def _patterns(self) -> list[Parameters]:
        """Return the rules in files that fit no jail as yet, as List shows one that waits."""
        ids = {m.rule.id.partition("@")[0] for m in self._shown() if m.rule.lasting}
        roster = self._hub.roster
        return [
            {
                "id": rule.name,
                "jail": rule.jail,
                "title": rule.title,
                "command": rule.command,
                "policy": rule.policy.texts(),
                "source": rule.source,
                "state": "waiting",
                "reason": roster.names.trouble(rule.jail) or ABSENT,
                "triggers": 0,
                "refused": 0,
            }
            for rule in roster.configuration.rules
            if rule.is_pattern and rule.name not in ids
        ]

    def describe(self, member: Member) -> Parameters:
        """Return a Rule of the interface."""
        keeper, rule = self._hub.keepers[member.rule.id], member.rule
        overlaps = [other.rule.id for other in self.fleet.overlapping(member)]
        warning = f"pkill -f may ring {', '.join(overlaps)} too" if overlaps else None
        return _present(
            {
                "id": rule.id,
                "jail": rule.jail,
                "jid": keeper.jail.number if keeper.jail else None,
                "title": rule.title,
                "command": rule.command,
                "policy": rule.policy.texts(),
                "source": rule.source,
                "state": member.shown(self._hub.now()).value,
                "reason": self._hub.why_not_armed(member) or warning,
                "probe_pid": keeper.probe_pid,
                "armed_at": stamp(member.armed_at),
                "last_trigger": stamp(member.last_trigger),
                "next_arming": stamp(member.next_arming),
                "triggers": member.triggers,
                "refused": member.refused,
            }
        )
