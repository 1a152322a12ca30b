#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs models of public test suites in the LiteRT interpreter and on a card in process, and writes docs/tflite.md.
# usage: models.sh DIRECTORY        where the pinned wheels, the models and the cases go
#
# The models are fetched from their repository, unless NPUEMU_TFLITE_MODELS names a directory that has them by their paths.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
mkdir -p "$dir"
if ! cmp -s "$here/requirements.txt" "$dir/requirements.txt"; then
	rm -rf "$dir/venv" "$dir/cases"
	python3 -m venv "$dir/venv"
	"$dir/venv/bin/pip" install --quiet -r "$here/requirements.txt"
	cp "$here/requirements.txt" "$dir/requirements.txt"
fi
models=${NPUEMU_TFLITE_MODELS:-$dir/models}
if [ -z "${NPUEMU_TFLITE_MODELS:-}" ]; then
	commit=$(sed -n 's/^commit //p' "$here/models.txt")
	grep -v '^#\|^commit' "$here/models.txt" | while read -r digest path; do
		if ! echo "$digest  $models/$path" | sha256sum --check --status 2>/dev/null; then
			mkdir -p "$models/$(dirname "$path")"
			curl --fail --silent --show-error --location --output "$models/$path" "https://raw.githubusercontent.com/tensorflow/tflite-micro/$commit/$path" || {
				echo "models.sh: $path cannot be fetched: give a directory that has the models in NPUEMU_TFLITE_MODELS" >&2
				exit 1
			}
		fi
	done
fi
"$dir/venv/bin/python" -W ignore "$here/golden.py" "$models" "$here/models.txt" "$dir/cases"
cd "$here/../.."
NPUEMU_TFLITE_CASES=$dir/cases go test ./tests/tflite -count=1 -run '^TestModels$' -v -update
