# SPDX-License-Identifier: BSD-2-Clause
"""The program's first line and its last resort: nothing shows its user a traceback.

It loads nothing before the first can act, and what the last one needs is here.
"""

import _signal  # type: ignore[import-not-found]  # "signal" takes 2 ms to load

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    # Ctrl-C ends us at once, whatever is being loaded; cli/interrupt.py has the exceptions.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import errno
import os
import sys

OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def told(error: BaseException) -> str:
    """Return one line about an error that nobody expected; of a bug, where it is."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, OSError) and error.strerror:
        # All else that is written has a name, or is made an error of ours.
        written = "standard output" if error.errno in OF_OUTPUT else None
        on = error.filename or written
        text = f"{on}: {error.strerror}" if on else error.strerror
    else:
        text = f"internal error: {type(error).__name__}: {error} ({_place(error)})"
    return " ".join(text.split())


def _place(error: BaseException) -> str:
    trace, place = error.__traceback__, "nowhere"
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{'/'.join(code.co_filename.split('/')[-2:])}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _tell(error: BaseException) -> None:
    try:
        os.write(2, f"jaildaemon: {told(error)}\n".encode(errors="backslashreplace"))
    except OSError:
        return  # nobody can be told


def _flush(code: int, *, failed: bool) -> int:
    """Write what is still to be written; return the exit code, 1 where that cannot be.

    What has `failed` was told already: here it fails once more.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            code = code or 1
            if stream is sys.stdout and not (failed or isinstance(error, BrokenPipeError)):
                _tell(error)
            _silence(code)
    return code


def _silence(code: int) -> None:
    """Have the interpreter's own end write nowhere, or it would complain of it (exit 120)."""
    try:
        null_fd = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_fd, 1)
        os.dup2(null_fd, 2)
    except OSError:
        os._exit(code)


def main() -> int:
    """Run the command line; return the exit code."""
    failed = False
    try:
        from jaildaemon.cli.main import main as run  # noqa: PLC0415 - an error of it is caught

        code = run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 1  # who read our output has had enough
    except Exception as error:  # noqa: BLE001 - the last resort
        _tell(error)
        code, failed = 1, True
    return _flush(code, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
