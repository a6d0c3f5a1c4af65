#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# make install.  PREFIX, DESTDIR and PYTHON come from the environment:
#
#   PREFIX/lib/jaildaemon         a virtual environment of its own, without pip
#   PREFIX/bin/jaildaemon         a link into it
#   PREFIX/share/man/man1         the manual page; FreeBSD's man(1) looks there
#                                 and, for older ports, in PREFIX/man
#   PREFIX/share                  the completions of bash, zsh and fish
#   PREFIX/etc/rc.d/jaildaemon    on FreeBSD
#   PREFIX/lib/systemd/system     on Linux
#
# Then it says what is where, and what to do next.
#
# Nothing else is written, save the helper in this work tree and temporary files.
# With DESTDIR the same goes below it, and names what will be the final paths.
set -eu
umask 022
cd "$(dirname "$0")/.."

fail() {
	echo "jaildaemon: install: $1" >&2
	exit 1
}

python=${PYTHON:-python3}
prefix=${PREFIX:-/usr/local}
destdir=${DESTDIR:-}
case $prefix in
/*) ;;
*) prefix=$(pwd)/$prefix ;;
esac
case $destdir in
"" | /*) ;;
*) destdir=$(pwd)/$destdir ;;
esac
prefix=${prefix%/}
# It goes into the first line of a script, which has no quotes.
case $prefix in
*[!A-Za-z0-9._/+:,@=-]*) fail "$prefix: PREFIX may hold letters, digits and ._/+:,@=- only" ;;
esac
[ ${#prefix} -le 90 ] || fail "$prefix: PREFIX is longer than 90 characters"
command -v "$python" >/dev/null 2>&1 || fail "no $python; install the package python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
	fail "$("$python" --version) is too old; install Python 3.11 or later"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
	fail "no venv module; install the package python3-venv"

lib=$prefix/lib/jaildaemon
if [ -e "$destdir$lib" ] && ! [ -f "$destdir$lib/pyvenv.cfg" ]; then
	fail "$destdir$lib is in the way: it is no earlier installation"
fi

# Made aside and moved into place, so that a failure leaves the old one as it was.
new=$destdir$lib.new
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$new"
mkdir -p "$destdir$prefix/lib"
echo "Installing into $destdir$prefix: pip fetches four small packages; about half a minute."
"$python" -m venv "$new"
pip() {
	# Twice: its errors alone, for its warnings are about the caller's own settings.
	PIP_ROOT_USER_ACTION=ignore "$new/bin/python" -m pip \
	    --quiet --quiet --disable-pip-version-check "$@"
}
pip install --no-compile .
pip uninstall --yes setuptools pip 2>/dev/null

# What names the build's paths goes, or is written anew.
for file in "$new"/bin/*; do
	case ${file##*/} in
	python*) ;;
	*) rm -f "$file" ;;
	esac
done
rm -f "$new"/lib/python3*/site-packages/jaildaemon-*.dist-info/direct_url.json
sed '/^command = /d' "$new/pyvenv.cfg" >"$new/pyvenv.cfg.new"
mv "$new/pyvenv.cfg.new" "$new/pyvenv.cfg"
minor=$("$new/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
sh tools/launcher.sh "$lib" "$minor" >"$new/bin/jaildaemon"
chmod 755 "$new/bin/jaildaemon"
# -f: pip has compiled under the temporary path what it imported itself.
"$new/bin/python" -m compileall -f -q -s "$new" -p "$lib" "$new/lib"
"$new/bin/python" -I "$new/bin/jaildaemon" --version >/dev/null

rm -rf "$destdir$lib"
mv "$new" "$destdir$lib"
mkdir -p "$destdir$prefix/bin"
rm -f "$destdir$prefix/bin/jaildaemon"
ln -s ../lib/jaildaemon/bin/jaildaemon "$destdir$prefix/bin/jaildaemon"

for page in man/*.[1-9]; do
	section=$destdir$prefix/share/man/man${page##*.}
	mkdir -p "$section"
	install -m 644 "$page" "$section/"
done

shells=$destdir$prefix/share
for place in bash-completion/completions/jaildaemon:jaildaemon.bash \
    zsh/site-functions/_jaildaemon:_jaildaemon \
    fish/vendor_completions.d/jaildaemon.fish:jaildaemon.fish; do
	mkdir -p "$(dirname "$shells/${place%%:*}")"
	install -m 644 "packaging/completions/${place#*:}" "$shells/${place%%:*}"
done

system=$(uname -s)
case $system in
FreeBSD)
	service=etc/rc.d/jaildaemon
	mkdir -p "$destdir$prefix/etc/rc.d"
	sed -e "s|%%PREFIX%%|$prefix|g" -e "s|%%PYTHON_CMD%%|$lib/bin/python|g" \
	    packaging/freebsd/jaildaemon.in >"$destdir$prefix/$service"
	chmod 555 "$destdir$prefix/$service"
	;;
Linux)
	service=lib/systemd/system/jaildaemon.service
	mkdir -p "$destdir$prefix/lib/systemd/system"
	sed "s|/usr/local/|$prefix/|g" packaging/systemd/jaildaemon.service \
	    >"$destdir$prefix/$service"
	chmod 644 "$destdir$prefix/$service"
	;;
*) service= ;;
esac

version=$("$destdir$lib/bin/python" -I "$destdir$lib/bin/jaildaemon" --version)
echo "$version is installed in $destdir$prefix:"
echo "  bin/jaildaemon    the command, a link into lib/jaildaemon"
echo "  lib/jaildaemon    all of it, with $("$destdir$lib/bin/python" --version)"
[ -z "$service" ] || echo "  $service"
echo "  share             the manual, completions for bash, zsh and fish"
[ -z "$destdir" ] || exit 0

command=$prefix/bin/jaildaemon
case :$PATH: in *":$prefix/bin:"*) command=jaildaemon ;; esac
home=$("$lib/bin/python" -I -c '
import os, sys
path = os.path.realpath(sys.executable)
while path != "/":
    path = os.path.dirname(path)
    if not os.stat(path).st_mode & 1:
        print(path)
        break
')
[ -z "$home" ] ||
	echo "Nobody but root can run it: its Python is in $home.  PYTHON=/usr/bin/python3 is for all."
if [ -S /var/run/jaildaemon.pipe ]; then
	echo "Next, as root: let the daemon that runs become this one, every probe in its place:"
	echo "  $command restart"
	exit 0
fi
echo "Next, as root: start the daemon, and see whether this machine is as it must be:"
case $system,$prefix in
FreeBSD,/usr/local)
	echo "  sysrc jaildaemon_enable=YES"
	echo "  service jaildaemon start"
	;;
Linux,/usr/local | Linux,/usr)
	if [ -d /run/systemd/system ]; then
		echo "  systemctl daemon-reload"
		echo "  systemctl enable --now jaildaemon"
	else
		echo "  $command -D"
	fi
	;;
*)
	echo "  $command -D"
	;;
esac
echo "  $command doctor"
case $system in FreeBSD) etc=/usr/local/etc ;; *) etc=/etc ;; esac
echo "Then write rules into $etc/jaildaemon.toml; 'man jaildaemon.toml' has examples."
