#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Builds the two C programs into a directory: sh helper/build.sh DIRECTORY.  CC,
# CFLAGS and TARGET_OS from the environment; the one place that knows how, for
# make, pip and the port.
set -eu
here=$(dirname "$0")
out=$1/jailprobe
cc=${CC:-cc}
if ! command -v "${cc%% *}" >/dev/null 2>&1; then
	echo "jaildaemon: no C compiler ($cc); install the package gcc or clang" >&2
	exit 1
fi
warnings="-Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
-Wwrite-strings -Wvla -Wformat=2"
mkdir -p "$1"
case ${TARGET_OS:-$(uname -s)} in
Linux)
	if ! printf '#include <linux/seccomp.h>\n' | $cc -E - >/dev/null 2>&1; then
		echo "jaildaemon: no kernel headers; install the package libc6-dev" \
		    "(Debian), kernel-headers (Fedora) or linux-headers (Alpine)" >&2
		exit 1
	fi
	# No C library, no writable data, one segment: 4 kB of a probe's own memory.
	# shellcheck disable=SC2086
	$cc -std=c11 -Os $warnings -ffreestanding -fno-stack-protector -fno-pic \
	    -fno-asynchronous-unwind-tables -fno-unwind-tables -fcf-protection=none ${CFLAGS:-} \
	    -static -nostdlib -nostartfiles -s -Wl,--build-id=none \
	    -Wl,-z,noexecstack -Wl,-z,norelro -Wl,-z,noseparate-code \
	    -o "$out.new" "$here/helper_linux.c" "$here/params.c"
	;;
FreeBSD)
	# shellcheck disable=SC2086
	$cc -std=c11 -D__BSD_VISIBLE=1 -O2 $warnings ${CFLAGS:-} -static \
	    -o "$out.new" "$here/helper_freebsd.c" "$here/params.c"
	;;
*)
	echo "jaildaemon: $(uname -s) has neither jails nor PID namespaces" >&2
	exit 1
	;;
esac
# shellcheck disable=SC2086
$cc -std=gnu11 -O2 $warnings ${CFLAGS:-} -o "$1/jailoutput.new" "$here/output.c"
for program in jailprobe jailoutput; do
	chmod 755 "$1/$program.new"
	mv "$1/$program.new" "$1/$program"
done
