# SPDX-License-Identifier: BSD-2-Clause
"""AppArmor's label of a container, as /proc shows it: carried whole, or refused."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: Linux's security modules", allow_module_level=True)
assert sys.platform == "linux"

from jaildaemon.backends.linux_jail import parse_label


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
