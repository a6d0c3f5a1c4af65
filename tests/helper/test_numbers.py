# SPDX-License-Identifier: BSD-2-Clause
"""helper.h and backends/base.py say the same numbers."""

import re
import struct
from pathlib import Path

from jaildaemon.backends import base

HEADER = (Path(__file__).parents[2] / "helper" / "helper.h").read_text(encoding="ascii")


def defines(prefix: str) -> dict[str, int]:
    """Return the header's `#define PREFIX_NAME VALUE`, numbers and characters."""
    found = re.findall(rf"^#define ({prefix}_\w+) ('.'|0x[0-9a-f]+U?|\d+U?)", HEADER, re.MULTILINE)
    return {
        name: ord(value[1]) if value.startswith("'") else int(value.rstrip("U"), 0)
        for name, value in found
    }


def enumerators(prefix: str) -> dict[str, int]:
    """Return the header's enumerators `PREFIX_NAME = VALUE`."""
    found = re.findall(rf"\b({prefix}_\w+) = (\d+)", HEADER)
    return {name: int(value) for name, value in found}


def python(prefix: str) -> dict[str, int]:
    """Return what Python calls so."""
    return {
        name: value
        for name, value in vars(base).items()
        if name.startswith(f"{prefix}_") and isinstance(value, int)
    }


def test_the_steps() -> None:
    steps = enumerators("STEP")
    assert len(steps) == HEADER.count("STEP_")
    assert {f"STEP_{name.upper()}": number for number, name in base.STEPS.items()} == steps
    assert sorted(steps.values()) == list(range(1, 24))


def test_the_descriptors() -> None:
    assert (
        python("FD")
        == defines("FD")
        == enumerators("FD")
        | {
            "FD_STATUS": 3,
            "FD_GO": 4,
            "FD_JAIL": 5,
            "FD_IMAGE": 6,
            "FD_USERNS": 7,
        }
    )


def test_the_record_kinds() -> None:
    assert python("RECORD") == defines("RECORD")
    assert defines("RECORD") == {
        "RECORD_PID": ord("P"),
        "RECORD_READY": ord("R"),
        "RECORD_ERROR": ord("E"),
    }
    assert base.RECORD.size == struct.calcsize("<BBHi") == 8


def test_the_flags() -> None:
    flags = defines("FLAG")
    every = flags.pop("FLAG_ALL")
    assert python("FLAG") == flags
    assert sum(flags.values()) == every


def test_the_parameter_record() -> None:
    assert defines("PARAMS")["PARAMS_MAGIC"] == base.PARAMS_MAGIC
    assert base.PARAMS_MAGIC.to_bytes(4, "little") == b"JDP1"
    assert base.PARAMS_HEAD.size == defines("PARAMS")["PARAMS_HEAD"]


def test_the_labels() -> None:
    kinds = enumerators("LABEL")
    assert python("LABEL") == {**kinds, "LABEL_MAX": defines("LABEL")["LABEL_MAX"]}
    assert base.LABEL_MAX == 1000


def test_the_probes_name_fits_into_a_linux_comm() -> None:
    (name,) = re.findall(r'^#define PROBE_NAME "(.*)"', HEADER, re.MULTILINE)
    assert name == "jailprobe"
    assert len(name) <= 15
