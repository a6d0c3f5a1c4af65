#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Every linter, or the one named:  sh tools/lint.sh BIN [CHECK]
# BIN is the directory of ruff and mypy.  Exit status: 0 nothing found, 1 a
# finding, 77 the CHECK asked for has no tool here (without CHECK it is named,
# and no failure).
set -u
bin=$(cd "$1" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2
all="ruff format mypy-linux mypy-freebsd mandoc shellcheck"

# Runs its arguments; the first is the tool, in BIN or in PATH.
with() {
	tool=$1
	shift
	[ -x "$bin/$tool" ] && tool=$bin/$tool
	command -v "$tool" >/dev/null || return 77
	"$tool" "$@"
}

check() {
	case $1 in
	ruff) with ruff check --quiet --output-format concise . ;;
	format) with ruff format --quiet --check --output-format concise . ;;
	# A cache each: one for both would be thrown away every time.
	mypy-*)
		system=${1#mypy-}
		with mypy --no-error-summary --platform "$system" \
			--cache-dir ".mypy_cache/$system"
		;;
	mandoc)
		set -- man/*.[1-9]
		[ ! -e "$1" ] || with mandoc -T lint -W warning "$@"
		;;
	shellcheck)
		find . -name .venv -prune -o -name '*.sh' -print -o -path ./.ci/run -print |
			sort | (
				set --
				while read -r file; do set -- "$@" "$file"; done
				with shellcheck "$@"
			)
		;;
	*) echo "no such check: $1 (there are: $all)" >&2 && return 2 ;;
	esac
}

if [ $# -gt 1 ]; then
	check "$2"
	exit
fi
status=0
for name in $all; do
	check "$name"
	case $? in
	0) ;;
	77) echo "lint: $name: its tool is not installed" ;;
	*) status=1 && echo "lint: $name found something" ;;
	esac
done
exit $status
