#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Makes a minimal Debian by debootstrap(8), as root, with a clean clone of HEAD in it, and runs
# commands there, one after the other, each a line for sh(1):
#
#   sh tools/fresh-debian.sh [-u] [-a] SUITE COMMAND...
#   sh tools/fresh-debian.sh trixie 'make demo' 'make test'
#
#   -u  as an ordinary user with umask 0002, instead of root
#   -a  with all packages of tools/debian-install.sh, instead of those that README.md names
#
# It has mount, PID, UTS and IPC namespaces of its own, and from Debian 13 on a /tmp of its own;
# network, cgroups and devices are the host's.  pip and apt reach what they reach on the host.
# MIRROR names another mirror than the host's.  The bare systems are kept for a week in CACHE.
# Exit status: that of the command that failed, or 0; 77 without debootstrap or not as root.
set -eu
cd "$(dirname "$0")/.."

fail() {
	echo "jaildaemon: fresh-debian: $1" >&2
	exit "${2:-1}"
}

# --- inside -------------------------------------------------------------------------------

# Becomes that system: enter ROOT SUITE, then the binds, a "--" and a command.
enter() {
	root=$1 suite=$2
	shift 2
	mount --bind "$root" "$root"
	cd "$root"
	mount -t proc proc proc
	for name in sys dev; do mount --rbind "/$name" "$name"; done
	mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
	mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
	mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
	mkdir -p run/lock
	case $suite in
	bookworm | bullseye) ;;
	*) mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp ;;
	esac
	while [ "$1" != -- ]; do
		mkdir -p "./$1"
		mount --bind -o ro "$1" "./$1"
		shift
	done
	shift
	echo "fresh-$suite" >/proc/sys/kernel/hostname
	pivot_root . mnt
	cd /
	umount --lazy /mnt
	# Not by exec: as the first process this shell reaps what others leave.
	status=0
	"$@" || status=$?
	exit $status
}

if [ "${1:-}" = --enter ]; then
	shift
	enter "$@"
fi

# --- outside ------------------------------------------------------------------------------

user=root
packages=readme
while getopts ua option; do
	case $option in
	u) user=user ;;
	a) packages=all ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || fail "usage: sh tools/fresh-debian.sh [-u] [-a] SUITE COMMAND..." 2
suite=$1
shift
[ "$(id -u)" = 0 ] || fail "only root can make a system: run it as root" 77
command -v debootstrap >/dev/null || fail "no debootstrap; install the package debootstrap" 77

cache=${CACHE:-/var/cache/jaildaemon}
mkdir -p "$cache"
work=$(mktemp -d /var/tmp/fresh-debian.XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$work"
root=$work/root
settings="/etc/pip.conf /etc/xdg/pip/pip.conf $HOME/.pip/pip.conf $HOME/.config/pip/pip.conf"

# The variables by which pip finds its index, and what it trusts.
variables=$(env | sed -n -e 's/^\(PIP_[A-Z_]*\)=.*/\1/p' -e 's/^\([A-Za-z]*_[Pp][Rr][Oo][Xx][Yy]\)=.*/\1/p' \
    -e 's/^\([A-Z_]*_CA_BUNDLE\)=.*/\1/p' -e 's/^\(SSL_CERT_[A-Z]*\)=.*/\1/p')

# Says which files and directories these settings name.
named() {
	{
		for name in $variables; do eval "echo \"\$$name\""; done
		# shellcheck disable=SC2086 # one word for each file
		cat $settings 2>/dev/null || :
	} | grep -o '/[^[:space:],:]*' |
		# What an index names lies beside it.
		sed -e 's|^/*|/|' -e 's|/simple/*$||' | sort -u | while read -r path; do
		[ ! -e "$path" ] || echo "$path"
	done
}

mirror() {
	# shellcheck source=/dev/null
	. /etc/os-release
	[ "${ID:-}" = debian ] || return 0
	# The format's words are apt's, not the shell's.
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Component: main" \
	    "Release: ${VERSION_CODENAME:-}" 2>/dev/null | head -n 1
}

# Runs a command in $root; before the "--" what is bound into it.
within() {
	unshare --mount --pid --ipc --uts --fork --kill-child -- \
	    sh tools/fresh-debian.sh --enter "$root" "$suite" "$@"
}

path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Gives, as $root, the system that the cache has under a name, or has a function make it.
cached() {
	mkdir "$root"
	if [ -n "$(find "$cache/$1.tar" -mtime -7 2>/dev/null)" ]; then
		tar -C "$root" --numeric-owner -xpf "$cache/$1.tar"
		return
	fi
	"$2"
	tar -C "$root" --numeric-owner -cf "$cache/$1.tar.$$" .
	mv "$cache/$1.tar.$$" "$cache/$1.tar"
}

bare() {
	source=${MIRROR:-$(mirror)}
	echo "Making a bare $suite: debootstrap takes about a minute."
	# Twice, for a mirror that did not answer once.
	# shellcheck disable=SC2086 # none, or one word
	debootstrap --variant=minbase "$suite" "$root" $source >"$work/log" 2>&1 ||
		debootstrap --variant=minbase "$suite" "$root" $source >"$work/log" 2>&1 ||
		{ tail -n 5 "$work/log" >&2 && fail "debootstrap failed"; }
	apt-config dump 2>/dev/null | grep -E '^Acquire::(https?|Check-|Retries)' \
	    >"$root/etc/apt/apt.conf.d/90host" || :
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
}

with_packages() {
	rmdir "$root"
	cached "$suite" bare
	cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
	cp tools/debian-install.sh "$root/var/tmp/"
	echo "Installing the packages ($packages) into it."
	within -- env -i "PATH=$path" LANG=C.UTF-8 sh /var/tmp/debian-install.sh "$packages"
	within -- env -i "PATH=$path" apt-get clean
}

list=$(sh tools/debian-install.sh "$packages" -n | cksum)
cached "$suite-$packages-${list%% *}" with_packages

# What may have changed since it was kept, and what the host's pip and apt know.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
home=/root
if [ "$user" != root ]; then
	home=/home/$user
	chroot "$root" useradd --create-home --shell /bin/bash "$user"
fi
for name in $settings; do
	to=$root$(echo "$name" | sed "s|^$HOME/|$home/|")
	[ ! -f "$name" ] || { mkdir -p "$(dirname "$to")" && cp -L "$name" "$to"; }
done
git clone --quiet --bare --no-hardlinks . "$root/var/tmp/tree.git"
chroot "$root" chown -R "$user:$user" "$home" /var/tmp/tree.git

words="env -i PATH=$path HOME=$home USER=$user LANG=C.UTF-8 TERM=dumb"
for name in $variables; do eval "words=\"\$words $name=\$$name\""; done
binds=
for name in $(named); do
	if [ -f "$name" ]; then
		mkdir -p "$root$(dirname "$name")"
		cp -L "$name" "$root$name"
	elif [ ! -e "$root$name" ]; then
		binds="$binds $name"
	fi
done
become="setpriv --reuid=$user --regid=$user --init-groups"
umask=0002
[ "$user" != root ] || { become='' && umask=0022; }
cat >"$root/var/tmp/run" <<'END'
umask "$1"
shift
cd
git clone --quiet /var/tmp/tree.git jaildaemon
cd jaildaemon
echo "$(. /etc/os-release && echo "$PRETTY_NAME"), $(python3 --version), $(id -un), umask $(umask):" \
    "$(git log -1 --format='%h %s')"
for command in "$@"; do
	echo "\$ $command"
	sh -c "$command" </dev/null || exit
done
END
# shellcheck disable=SC2086 # they are lists of words
within $binds -- $words $become sh /var/tmp/run $umask "$@"
