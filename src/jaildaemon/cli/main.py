# SPDX-License-Identifier: BSD-2-Clause
"""The entry point.  Each way loads only what it needs: -c must be quick."""

import os
import sys

from jaildaemon.cli import options, output
from jaildaemon.core.text import shown
from jaildaemon.errors import JaildaemonError, UsageError


def _attach(wish: options.Options) -> int:
    from jaildaemon.cli import client

    parameters: dict[str, object] = {"command": wish.command, "jail": wish.jail}
    if wish.title is not None:
        parameters["title"] = wish.title
    if wish.policy:
        parameters["policy"] = wish.policy
    if wish.replace:
        parameters["replace"] = True
    client.call(wish.socket, "Attach", parameters, client.ORDER_SECONDS)
    return 0


def _original(arguments: list[str]) -> int:
    wish = options.parse(arguments)
    if wish.help:
        sys.stdout.write(options.USAGE)
        return 0
    if wish.version:
        from jaildaemon import __version__

        sys.stdout.write(f"jaildaemon {__version__}\n")
        return 0
    if wish.daemon:
        from jaildaemon.daemon import service

        places = service.Places(wish.pidfile, wish.socket, wish.state, options.SOCKET, wish.config)
        return service.start(places, foreground=wish.foreground)
    return _attach(wish)


def _have_standard_files() -> None:
    """Open what our caller closed of 0, 1 and 2: they must never be a socket or a pidfile."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - standard error
        continue
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code.  Other errors are jaildaemon.__main__'s."""
    _have_standard_files()
    output.prepare()
    try:
        arguments = options.words() if arguments is None else arguments
        if arguments and not arguments[0].startswith("-"):
            from jaildaemon.cli import commands

            return commands.run(arguments)
        return _original(arguments)
    except UsageError as error:
        sys.stderr.write(f"jaildaemon: {shown(str(error))}\n{options.USAGE}")
        return error.exit_code
    except JaildaemonError as error:
        for line in error.lines():
            sys.stderr.write(f"jaildaemon: {shown(line)}\n")
        return error.exit_code
