# SPDX-License-Identifier: BSD-2-Clause
"""The negative control of a start: what a daemon made in an afternoon does with its files.

    python naive_start.py DIRECTORY

It takes whatever lies in their places, does what the rules and the journal say,
and leaves all of it behind.
"""

import os
import socket
import subprocess
import sys


def run_lines(path: str) -> None:
    """Run what a file says, if there is one."""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                subprocess.run(["/bin/sh", "-c", line], check=True)


def main() -> None:
    """Start, and end."""
    os.chdir(sys.argv[1])
    for name in ("pipe.lock", "pid"):
        with open(name, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    os.makedirs("var/state", exist_ok=True)
    run_lines("etc/rules.toml")
    run_lines("var/state/journal.jsonl")
    for program in ("helper", "jailoutput"):
        if os.path.exists(program):
            subprocess.run([f"./{program}"], check=False)
    if os.path.lexists("pipe"):
        os.unlink("pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("pipe")


if __name__ == "__main__":
    main()
