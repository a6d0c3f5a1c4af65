#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Makes the virtual environment: sh tools/setup.sh VENV.  What is missing on the
# machine is named in one line, with its package.
set -eu
venv=$1
python=${PYTHON:-python3}

need() {
	echo "jaildaemon: $1" >&2
	exit 1
}

command -v "$python" >/dev/null 2>&1 || need "no $python; install the package python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
	need "$("$python" --version) is too old; install Python 3.11 or later"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
	need "no venv module; install the package python3-venv"
"$python" -c 'import ctypes' 2>/dev/null ||
	need "no ctypes module; install the package that has it (libffi, then Python again)"
command -v "${CC:-cc}" >/dev/null 2>&1 ||
	need "no C compiler; install the package gcc or clang"
echo "Making $venv: pip fetches what the tests and the linters need; about half a minute."
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check -e '.[dev]'
# No daemon starts a program that others can change, by a directory on the way to it either;
# with umask 0002 a group can.
chmod go-w . src "$venv" "$venv/bin"
find "$venv/bin" -type f -exec chmod go-w {} +
chmod -R go-w src/jaildaemon
touch "$venv/ready"
