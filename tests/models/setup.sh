#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh: ONNX Runtime, and what the generators need, in a Python environment of
# its own in the cache. Prints the cache's directory for models.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/npuemu}/models
if ! cmp -s "$here/requirements.txt" "$dir/requirements.txt"; then
	echo 'models: fetching the wheels of requirements.txt …' >&2
	rm -rf "$dir"
	python3 -m venv "$dir/python" >&2
	"$dir/python/bin/pip" -q --disable-pip-version-check install -r "$here/requirements.txt" >&2
	cp "$here/requirements.txt" "$dir/"
fi
printf '%s\n' "$dir"
