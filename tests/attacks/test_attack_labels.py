# SPDX-License-Identifier: BSD-2-Clause
"""AppArmor's label of a container, as /proc shows it: carried whole, or refused.

A real AppArmor is met in test_attack_apparmor.py, where there is one.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: Linux's security modules", allow_module_level=True)
assert sys.platform == "linux"

from jaildaemon.backends import HELPER
from jaildaemon.backends.linux_jail import parse_label
from tests.attacks.cage import PLANS
from tests.attacks.linux_fixtures import Make


@pytest.mark.parametrize(
    ("shown", "label"),
    [
        (b"docker-default (enforce)\n", b"docker-default"),
        (b"docker-default (complain)", b"docker-default"),
        (b"docker-default (kill)\n", b"docker-default"),
        (b"unconfined\n", b"unconfined"),
        (
            b"lxc-web_</var/lib/lxc>//&:lxc-web_<-var-lib-lxc>:unconfined (mixed)\n",
            b"lxc-web_</var/lib/lxc>//&:lxc-web_<-var-lib-lxc>:unconfined",
        ),
        (b"/usr/bin/man//groff (enforce)\n", b"/usr/bin/man//groff"),
        # The mode is the last word only: a profile may be called anything.
        (b"evil (enforce) (enforce)\n", b"evil (enforce)"),
        (b"evil (complain) (enforce)\n", b"evil (complain)"),
        (b"unconfined (kill) (enforce)\n", b"unconfined (kill)"),
        (b"snap.web (user)\n", b"snap.web"),
        (b"a b (complain)\n", b"a b"),
        (b"", b""),
        (b"\n\0\n", b""),
    ],
)
def test_a_label_is_what_stands_before_the_mode(shown: bytes, label: bytes) -> None:
    assert parse_label(shown) == label


def test_the_word_that_is_written_for_the_next_exec_is_one_label() -> None:
    """An inner line end would be a second word to the kernel: it stays, and is refused there."""
    assert parse_label(b"a\nchangeprofile b (enforce)\n") == b"a\nchangeprofile b"


LOOK = """
import os, subprocess, sys
from pathlib import Path
from jaildaemon.backends.linux import LinuxBackend
from jaildaemon.errors import JaildaemonError
helper, init, enabled = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "none", "/sys/module"], check=True)
parameters = Path("/sys/module/apparmor/parameters")
parameters.mkdir(parents=True)
(parameters / "enabled").write_text(enabled)
try:
    jail = LinuxBackend(Path(helper)).resolve(init)
    print(*jail.label())
except JaildaemonError as error:
    print(error)
"""


def _looked(init: int, enabled: str) -> str:
    command = ["unshare", "--mount", sys.executable, "-c", LOOK, str(HELPER), str(init), enabled]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_module_that_is_built_in_and_switched_off_has_no_label(make_cage: Make) -> None:
    """What such a kernel shows of itself, over the files of this one."""
    cage = make_cage(PLANS["docker"])
    assert _looked(cage.init, "N\n") == "0 b''"


def test_a_label_that_is_not_shown_is_no_permission_to_go_without(make_cage: Make) -> None:
    with contextlib.suppress(OSError):
        shown = Path("/proc/self/attr/current").read_bytes()
        pytest.skip(f"cannot: this kernel shows labels: {shown!r}")
    cage = make_cage(PLANS["docker"])
    assert "the kernel shows no security label there" in _looked(cage.init, "Y\n")
