#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Installs Debian's packages, as root:  sh tools/debian-install.sh readme|all [-n]
# "readme" is what README.md names, without which nothing works; "all" is also what lets
# tests run that are skipped without it.  With -n they are printed, not installed.
set -eu
readme="git python3-venv gcc libc6-dev make"
all="$readme procps util-linux busybox-static
runc crun lxc docker.io docker-compose podman uidmap strace mandoc shellcheck bmake
clang libclang-rt-dev systemd systemd-container dbus zsh fish debootstrap locales
gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"
# Debian 12 has docker(1) in docker.io, and no package of this name.
where_there_is="docker-cli"

case ${1:-} in
readme) packages=$readme ;;
all) packages=$all ;;
*)
	echo "usage: sh tools/debian-install.sh readme|all [-n]" >&2
	exit 2
	;;
esac
if [ "${2:-}" = -n ]; then
	for name in $packages; do echo "$name"; done
	exit
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
if [ "$1" = all ]; then
	for name in $where_there_is; do
		! apt-cache show "$name" >/dev/null 2>&1 || packages="$packages $name"
	done
fi
# shellcheck disable=SC2086 # one word for each package
apt-get install -y -qq --no-install-recommends $packages >/dev/null
