#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Coverage-guided fuzzing of the two readers of untrusted bytes: sh tools/fuzz.sh
# BIN [RUNS].  Linux with clang and its runtime; atheris comes from PyPI.
set -eu
bin=$1
runs=${2:-1000000}
cc=${FUZZ_CC:-clang}
dir=build/fuzz
mkdir -p "$dir/params" "$dir/wire"
if ! command -v "$cc" >/dev/null 2>&1; then
	echo "jaildaemon: no $cc; install the package clang" >&2
	exit 1
fi
if ! "$cc" -g -O1 -fsanitize=fuzzer,address,undefined -o "$dir/fuzz_params" \
    tests/fuzz/fuzz_params.c helper/params.c 2>"$dir/log"; then
	cat "$dir/log" >&2
	echo "jaildaemon: libFuzzer is missing; install the package libclang-rt-dev" >&2
	exit 1
fi
echo "params.c: $runs runs"
"$dir/fuzz_params" -runs="$runs" -max_len=1100 -print_final_stats=1 "$dir/params" \
    tests/fuzz/seeds/params 2>&1 | tail -n 12
"$bin/python" -c 'import atheris' 2>/dev/null ||
	"$bin/python" -m pip install --quiet --disable-pip-version-check atheris
echo "wire.py: $runs runs"
"$bin/python" tests/fuzz/fuzz_wire.py -runs="$runs" -max_len=4096 "$dir/wire" \
    tests/fuzz/seeds/wire 2>&1 | tail -n 12
