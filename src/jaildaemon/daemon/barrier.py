# SPDX-License-Identifier: BSD-2-Clause
"""An error that nobody foresaw stops at what was asked for: the daemon goes on.

It is one line for whoever asked, and in the log that line and where it came from.
"""

import traceback

from jaildaemon.daemon.logs import Logger
from jaildaemon.errors import Refused


def unforeseen(log: Logger, what: str, error: Exception) -> Refused:
    """Log the error; return what is answered."""
    if isinstance(error, OSError):
        on, why, hint = str(error.filename or ""), error.strerror or str(error), None
    else:
        on, why = "", f"internal error: {type(error).__name__}: {error}"
        hint = "the daemon's log says where"
    answer = Refused(what, on, " ".join(why.split()), hint)
    log.error(f"{answer}")
    for part in traceback.format_exception(error):
        for line in part.rstrip().splitlines():
            log.info(f"{what}: {line}")
    return answer
