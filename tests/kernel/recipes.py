# SPDX-License-Identifier: BSD-2-Clause
"""The pages of docs/recipes: what is in them, as it can be run here."""

import re
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"
PAGES = sorted(path for path in RECIPES.glob("*.md") if path.name != "README.md")


def blocks(page: Path, kind: str) -> list[str]:
    """Return the fenced blocks of a kind."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def caller(directory: Path, jaildaemon: str | Path, socket: str | Path) -> Path:
    """Write a jaildaemon that calls the daemon under test."""
    ours = directory / "ours"
    ours.write_text(
        f'#!/bin/sh\nword=$1\nshift\ncase $word in -*) exec {jaildaemon} "$word" "$@" '
        f'-f {socket};; esac\nexec {jaildaemon} "$word" -f {socket} "$@"\n',
        encoding="ascii",
    )
    ours.chmod(0o755)
    return ours


def by_us(script: str, ours: Path) -> str:
    """Return a page's script with the jaildaemon under test."""
    script = re.sub(r"(?<![\w-])(/usr/local/bin/)?jaildaemon(?= )", str(ours), script)
    return script.replace(f"logger -t {ours}", "logger -t jaildaemon")
