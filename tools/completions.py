# SPDX-License-Identifier: BSD-2-Clause
"""The completions of bash, zsh and fish, made of the program's own parser.

python tools/completions.py --write puts them into packaging/completions, from
where tools/install.sh takes them: no user of the program needs shtab.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab

from jaildaemon.cli import commands, options

PLACE = Path(__file__).resolve().parent.parent / "packaging" / "completions"
NAMES = {"bash": "jaildaemon.bash", "zsh": "_jaildaemon", "fish": "jaildaemon.fish"}
ORIGINAL = {
    # what begins with a hyphen is read by getopt(3)'s rules, so argparse knows nothing of it
    "-D": "be the daemon",
    "-F": "stay in the foreground",
    "-c": "the command",
    "-j": "the jail",
    "-r": "again when the command has ended",
    "-R": "again at once",
    "-u": "the uid in the jail",
    "-g": "the gid in the jail",
    "-t": "the title",
    "-p": "the pidfile",
    "--version": "print the version",
    "--replace": "take the place of the same title",
    "--state-dir": "where the daemon keeps its journal",
    "--respawn": "no, after or now",
    "--signal": "HUP or USR1",
    "--limit": "at most N/DURATION triggers",
    "--cooldown": "the time after a run without a probe",
    "--timeout": "how long the command may run",
    "--settle": "the jail must outlive the trigger by this",
    "--concurrency": "runs at once",
    "--run-as": "the command's user on the host",
}
ALONE = {"-D", "-F", "-r", "-R", "--version", "--replace"}
"""Those without a value."""
FILES = {"-p", "--state-dir", "-f", "-o"}


def whole() -> argparse.ArgumentParser:
    """Return the parser of the subcommands with the original's options in it."""
    top = commands.parser()
    top.prog = "jaildaemon"
    for option, words in ORIGINAL.items():
        if option in ALONE:
            top.add_argument(option, action="store_true", help=words)
        else:
            top.add_argument(option, metavar=option.strip("-").upper(), help=words)
    top.add_argument("-f", metavar="ipcsockpath", default=options.SOCKET, help="the socket")
    return top


def _subcommands(
    top: argparse.ArgumentParser,
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield choice.dest, choice.help or "", action.choices[choice.dest]


def _fish_options(parser: argparse.ArgumentParser, condition: str) -> Iterator[str]:
    for action in parser._actions:
        if not action.option_strings:
            continue
        words = f"complete -c jaildaemon -n '{condition}'"
        for option in action.option_strings:
            long = option.startswith("--")
            words += f" -l {option[2:]}" if long else f" -s {option[1:]}"
        if action.nargs != 0:
            words += " -r" + (" -F" if FILES & set(action.option_strings) else " -f")
        yield f"{words} -d {_quoted(action.help or 'the socket')}"


def _quoted(words: str) -> str:
    return "'" + words.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish(top: argparse.ArgumentParser) -> str:
    """Return the completion for fish(1), of which shtab knows nothing."""
    lines = ["complete -c jaildaemon -f"]
    lines += _fish_options(top, "__fish_use_subcommand")
    for name, words, parser in _subcommands(top):
        described = _quoted(words.rstrip("."))
        lines.append(f"complete -c jaildaemon -n __fish_use_subcommand -a {name} -d {described}")
        lines += _fish_options(parser, f"__fish_seen_subcommand_from {name}")
    return "\n".join(lines) + "\n"


def made() -> dict[str, str]:
    """Return the file of each shell, by its name."""
    licence = "# SPDX-License-Identifier: BSD-2-Clause\n# Made by make completions.\n"
    top = whole()
    found = {}
    for shell, name in NAMES.items():
        text = fish(top) if shell == "fish" else shtab.complete(top, shell)
        first, _, rest = text.partition("\n")
        # zsh looks for its own words in the first line.
        text = f"{first}\n{licence}{rest}" if first.startswith("#compdef") else licence + text
        found[name] = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    return found


def main() -> int:
    """Write the files, or say which are stale."""
    stale = 0
    PLACE.mkdir(exist_ok=True)
    for name, text in made().items():
        path = PLACE / name
        if "--write" in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{path}: stale: run make completions\n")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
