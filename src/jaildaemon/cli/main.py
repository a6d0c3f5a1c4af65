# SPDX-License-Identifier: BSD-2-Clause
"""The entry point.  Each way loads only what it needs: -c must be quick."""

import os
import sys

from jaildaemon.cli import options
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
    client.call(wish.socket, "Attach", parameters)
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
    """Run the command line; return the exit code."""
    _have_standard_files()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
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
    except BrokenPipeError:
        # Who read our output has had enough.  What is still to be written goes nowhere,
        # or the interpreter would complain of it at its end (sys.exit, status 120).
        null_fd = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_fd, 1)
        os.close(null_fd)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
