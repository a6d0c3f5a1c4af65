# SPDX-License-Identifier: BSD-2-Clause
"""helper/params.c under the sanitizers, against a second reader written here."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaildaemon.backends.base import pack_params

HELPER = Path(__file__).parents[2] / "helper"
SOURCES = [Path(__file__).parent / "params_main.c", HELPER / "params.c"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
TOO_BIG = 2**32 - 1


def expected(record: bytes) -> str:
    """Read a record from helper.h's description, as the program prints it."""
    if len(record) < 24 or record[:4] != b"JDP1":
        return "no"
    flags, target, uid, gid, kind, length = struct.unpack("<4x4I2H", record[:24])
    label = record[24:]
    good = (
        len(label) == length <= 1000
        and kind in (0, 1, 2)
        and (kind == 0) is (label == b"")
        and flags in (0, 2, 4, 6)
        and TOO_BIG not in (uid, gid)
    )
    return f"{flags} {target} {uid} {gid} {kind} {label.hex()}." if good else "no"


def framed(record: bytes) -> bytes:
    """Return a record as params_main.c takes it."""
    return struct.pack("<I", len(record)) + record


def build(compiler: str, output: Path, *options: str) -> Path:
    """Compile the program."""
    command = [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{HELPER}", *options]
    subprocess.run([*command, "-o", output, *SOURCES], check=True, cwd=output.parent)
    return output


class Reader:
    """The program, running."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, record: bytes) -> str:
        """Return its verdict on one record."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(framed(record))
        self._process.stdin.flush()
        line = self._process.stdout.readline().decode()
        assert line.endswith("\n"), "it ended: see what the sanitizer says above"
        return line.rstrip("\n")

    def close(self) -> int:
        """End it; return its exit status, which is bad if memory was lost."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        return self._process.wait()


COMPILERS = ["gcc", "clang"] if sys.platform == "linux" else ["cc"]


@pytest.fixture(scope="module", params=COMPILERS)
def reader(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    """Give the program, built by each compiler there is."""
    if shutil.which(request.param) is None:
        cannot = "" if sys.platform == "linux" else "cannot: "
        pytest.skip(f"{cannot}no {request.param} here; install the package {request.param}")
    directory = tmp_path_factory.mktemp("params")
    try:
        program = build(request.param, directory / "params", *SANITIZED)
    except subprocess.CalledProcessError:
        pytest.skip(f"cannot: {request.param} has no sanitizers here")
    running = Reader(program)
    yield running
    assert running.close() == 0


U32 = st.integers(0, TOO_BIG) | st.sampled_from([0, 1, 65534, TOO_BIG - 1, TOO_BIG])


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Give records that are right, nearly right, or anything."""
    label = draw(st.binary(max_size=60) | st.sampled_from([b"", b"x" * 1000, b"x" * 1001]))
    record = bytearray(
        pack_params(
            flags=draw(st.integers(0, 8) | U32),
            target=draw(U32),
            uid=draw(U32),
            gid=draw(U32),
            label_kind=draw(st.integers(0, 3) | st.integers(0, 0xFFFF)),
            label=label,
        )
    )
    match draw(st.sampled_from(["as it is", "short", "long", "bent", "anything"])):
        case "short":
            del record[draw(st.integers(0, len(record))) :]
        case "long":
            record += draw(st.binary(min_size=1, max_size=9))
        case "bent":
            record[draw(st.integers(0, 23))] = draw(st.integers(0, 255))
        case "anything":
            record = bytearray(draw(st.binary(max_size=1100)))
    return bytes(record)


GOOD = pack_params(flags=2, target=7, uid=0, gid=TOO_BIG - 1, label_kind=2, label=b"a\0b")


@settings(max_examples=600, deadline=None)
@given(record=records())
@example(record=GOOD)
@example(record=pack_params(flags=0, target=0, uid=TOO_BIG, gid=0))
@example(record=pack_params(flags=0, target=0, uid=0, gid=TOO_BIG))
@example(record=pack_params(flags=0, target=0, uid=0, gid=0, label_kind=1, label=b"x" * 1000))
@example(record=pack_params(flags=0, target=0, uid=0, gid=0, label_kind=1, label=b"x" * 1001))
def test_it_reads_what_the_second_reader_reads(reader: Reader, record: bytes) -> None:
    assert reader.ask(record) == expected(record)


def test_every_length_but_the_right_one_is_refused(reader: Reader) -> None:
    assert reader.ask(GOOD) == f"2 7 0 {TOO_BIG - 1} 2 610062."
    for size in range(len(GOOD)):
        assert reader.ask(GOOD[:size]) == "no"
    for more in (1, 2, 1000, 2**16):
        assert reader.ask(GOOD + b"\0" * more) == "no"


def test_every_bent_bit_of_the_magic_is_refused(reader: Reader) -> None:
    for bit in range(32):
        bent = bytearray(GOOD)
        bent[bit // 8] ^= 1 << bit % 8
        assert reader.ask(bytes(bent)) == "no"


# One record for each way through; test_these_take_every_branch proves it.
WAYS = [
    GOOD,
    GOOD[:23],
    b"JDP2" + GOOD[4:],
    GOOD + b"\0",
    pack_params(flags=0, target=1, uid=0, gid=0, label_kind=1, label=b"x" * 1001),
    pack_params(flags=0, target=1, uid=0, gid=0, label_kind=3, label=b"x"),
    pack_params(flags=0, target=1, uid=0, gid=0, label_kind=0, label=b"x"),
    pack_params(flags=0, target=1, uid=0, gid=0, label_kind=1),
    pack_params(flags=1, target=1, uid=0, gid=0),
    pack_params(flags=8, target=1, uid=0, gid=0),
    pack_params(flags=0, target=1, uid=TOO_BIG, gid=0),
    pack_params(flags=0, target=1, uid=0, gid=TOO_BIG),
]


def test_these_take_every_branch(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or shutil.which("gcov") is None:
        pytest.skip("gcc and gcov are missing; install the package gcc")
    program = build("gcc", tmp_path / "params", "-O0", "--coverage")
    told = subprocess.run(
        [program], input=b"".join(map(framed, WAYS)), capture_output=True, check=True
    )
    assert told.stdout.decode().splitlines() == [expected(record) for record in WAYS]
    (notes,) = tmp_path.glob("*-params.gcda")
    done = subprocess.run(
        ["gcov", "--branch-probabilities", "--json-format", "--stdout", notes.name],
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    (file,) = [f for f in json.loads(done.stdout)["files"] if f["file"].endswith("params.c")]
    missed = [
        line["line_number"]
        for line in file["lines"]
        if line["count"] == 0 or any(branch["count"] == 0 for branch in line["branches"])
    ]
    assert missed == []
    assert sum(len(line["branches"]) for line in file["lines"]) >= 18
