# SPDX-License-Identifier: BSD-2-Clause
"""The helper builds without a warning by every compiler, and for the other processor."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helper.conftest import Starter
from tests.helper.parent import Record, Target, params, wait_child

BUILD = Path(__file__).parents[2] / "helper" / "build.sh"
ARM = "aarch64-linux-gnu-gcc"
QEMU = "qemu-aarch64-static"


def build(compiler: str, output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run helper/build.sh."""
    return subprocess.run(
        ["sh", BUILD, output.parent],
        env={"PATH": os.environ["PATH"], "CC": compiler, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("options", ["", "-O0", "-O3"])
def test_every_compiler_builds_it_without_a_warning(
    tmp_path: Path, compiler: str, options: str
) -> None:
    if shutil.which(compiler) is None:
        cannot = "" if sys.platform == "linux" else "cannot: "
        pytest.skip(f"{cannot}no {compiler} here; install the package {compiler}")
    done = build(compiler, tmp_path / "jailprobe", CFLAGS=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_compiler_is_one_line_that_names_the_package(tmp_path: Path) -> None:
    done = build("no-such-cc", tmp_path / "jailprobe")
    assert (done.returncode, done.stderr) == (
        1,
        "jaildaemon: no C compiler (no-such-cc); install the package gcc or clang\n",
    )
    assert os.listdir(tmp_path) == []


def test_another_system_is_refused(tmp_path: Path) -> None:
    done = build("cc", tmp_path / "jailprobe", TARGET_OS="Plan9")
    assert done.returncode == 1
    assert "has neither jails nor PID namespaces\n" in done.stderr


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="cannot: the Linux helper")


@needs_linux
def test_the_image_is_small_static_and_has_nothing_that_can_be_written(tmp_path: Path) -> None:
    """A probe's own memory is one stack page: so the budget of 8 kB holds."""
    image = tmp_path / "jailprobe"
    assert build("cc", image).returncode == 0
    data = image.read_bytes()
    assert len(data) < 16384
    # ELF64: program headers at e_phoff, e_phentsize 56 each
    offset, count = int.from_bytes(data[32:40], "little"), int.from_bytes(data[56:58], "little")
    headers = [data[offset + 56 * n :][:56] for n in range(count)]
    loads = [header for header in headers if header[0] == 1]
    assert [header[4] & 2 for header in loads] == [0] * len(loads)  # PF_W
    kinds = {int.from_bytes(header[:4], "little") for header in headers}
    assert not kinds & {2, 3}  # PT_DYNAMIC, PT_INTERP
    (stack,) = [h for h in headers if int.from_bytes(h[:4], "little") == 0x6474E551]
    assert stack[4] & 1 == 0  # PT_GNU_STACK, not executable


@pytest.fixture(scope="module")
def arm_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the helper for arm64."""
    if sys.platform != "linux":
        pytest.skip("cannot: the Linux helper")
    if shutil.which(ARM) is None:
        pytest.skip(f"{ARM} is missing; install gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    image = tmp_path_factory.mktemp("arm") / "jailprobe"
    done = build(ARM, image)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return image


def test_it_builds_for_arm64_without_a_warning(arm_image: Path) -> None:
    assert arm_image.read_bytes()[18:20] == (183).to_bytes(2, "little")  # EM_AARCH64


def run_arm(start: Starter, image: Path, record: bytes, jail_fd: int | None = None) -> list[Record]:
    """Run the arm64 helper under emulation; return its report."""
    qemu = shutil.which(QEMU)
    if qemu is None:
        pytest.skip(f"{QEMU} is missing; install the package qemu-user-static")
    image_fd = os.open(image, os.O_RDONLY)
    parent = start(target=Target(0, jail_fd, image_fd), wrap=[qemu, "-0", "jailprobe"])
    os.close(image_fd)
    parent.send(record)
    records = parent.records_to_the_end()
    assert wait_child(parent.pid) == ("exit", 1)
    return records


def test_on_arm64_a_bad_record_is_refused(start: Starter, arm_image: Path) -> None:
    assert run_arm(start, arm_image, b"garbage") == [("E", 1, errno.EINVAL)]


def test_on_arm64_it_goes_as_far_as_the_jail(start: Starter, arm_image: Path) -> None:
    assert run_arm(start, arm_image, params(0x20000000)) == [("E", 11, errno.EBADF)]


def test_on_arm64_it_enters_the_jail_and_gives_up_everything_there(
    start: Starter, arm_image: Path, target: Target
) -> None:
    # Only namespaces that a process with threads may join: the emulator has some.
    record = params(0x20000000 | 0x08000000)  # pid and ipc
    (told,) = run_arm(start, arm_image, record, target.jail_fd)
    # There the emulator's own ways end: it knows no execveat (until 8.1), or the
    # kernel no such image, or the emulator no seccomp.
    assert told in [("E", 15, errno.ENOSYS), ("E", 15, errno.ENOEXEC), ("E", 17, errno.EINVAL)]
