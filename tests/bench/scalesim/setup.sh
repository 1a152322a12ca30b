#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh: SCALE-Sim in a Python environment of its own in the cache. Prints
# the path of its interpreter.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/npuemu}/scalesim
if ! cmp -s "$here/requirements.txt" "$dir/requirements.txt"; then
	rm -rf "$dir"
	python3 -m venv "$dir" >&2
	"$dir/bin/pip" -q --disable-pip-version-check install -r "$here/requirements.txt" >&2
	cp "$here/requirements.txt" "$dir/"
fi
printf '%s\n' "$dir/bin/python"
