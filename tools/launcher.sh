#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Writes the installed command: sh tools/launcher.sh LIB VERSION, the directory of the
# virtual environment and the version of its Python.
#
# A later upgrade of the system may remove that Python, or put another minor version in
# its place, which does not look where the modules are.  Either is one line.  -I: no
# PYTHONPATH, no PYTHONHOME, nothing of the caller's directory or home.
set -eu
lib=$1
again="run make install again"
case ${TARGET_OS:-$(uname -s)} in
FreeBSD)
	# rc.subr(8) looks for the process by the first line.
	echo "#!$lib/bin/python -I"
	;;
*)
	cat <<EOT
#!/bin/sh
# sh(1) reads to the three quotes, Python from there on.
''''[ -x $lib/bin/python ] && exec $lib/bin/python -I "\$0" "\$@"
echo "jaildaemon: $lib/bin/python: Python $2, which it was installed with, is gone: $again" >&2
exit 1
'''
EOT
	;;
esac
cat <<EOT
import _signal
import sys

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

try:
    from jaildaemon.__main__ import main
except ModuleNotFoundError as error:
    if error.name != "jaildaemon":
        raise
    now = "%d.%d" % sys.version_info[:2]
    sys.exit(f"jaildaemon: it was installed for Python $2, and $lib/bin/python is {now}: $again")

sys.exit(main())
EOT
