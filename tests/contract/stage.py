# SPDX-License-Identifier: BSD-2-Clause
"""One arming against the fake, with the helper played by the test."""

from jaildaemon.backends.base import RECORD_PID, Jail
from jaildaemon.backends.probe import Probe
from jaildaemon.errors import JaildaemonError
from tests.contract.fake import FakeBackend, record
from tests.contract.fake_watcher import FakeProcess
from tests.contract.worlds import Owner


class WatchfulOwner(Owner):
    """Also notes which processes are left when it is told that nothing is."""

    def __init__(self, backend: FakeBackend) -> None:
        super().__init__()
        self._backend = backend
        self.left: set[int] = set()

    def failed(self, error: JaildaemonError) -> None:
        """Look at once."""
        super().failed(error)
        self.left = set(self._backend.processes)


class Stage:
    """One arming, with the helper played by the test."""

    def __init__(self, *, one_process: bool = False) -> None:
        self.backend = FakeBackend(one_process=one_process)
        self.backend.passive = True
        self.jail_name = self.backend.add_jail()
        self.jail: Jail = self.backend.resolve(self.jail_name)
        self.owner = WatchfulOwner(self.backend)
        self.probe = Probe(self.backend, self.jail, self.owner)
        self.probe.arm("jaildaemon: BELL", 0, 0)
        (self.helper,) = self.backend.helpers
        self.settle = self.backend.watcher.settle

    def end(self) -> None:
        """End everything; nothing may be left."""
        self.probe.kill()
        self.settle()
        assert self.backend.helpers == []
        assert self.backend.watcher.idle


def pid_record(process: FakeProcess) -> bytes:
    """Return the record that reports `process`."""
    return record(RECORD_PID, 0, process.pid)


def report(stage: Stage, untrusted: bytes) -> str:
    """Send bytes up the status pipe; return why arming failed, or what was told."""
    stage.helper.tell(untrusted)
    stage.settle()
    return str(stage.owner.error or " ".join(stage.owner.told))
