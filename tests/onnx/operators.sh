#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs ONNX's backend node test cases on a card in process and writes docs/operators.md.
# usage: operators.sh DIRECTORY        where the pinned wheels and the cases go
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
mkdir -p "$dir"
if ! cmp -s "$here/requirements.txt" "$dir/requirements.txt"; then
	rm -rf "$dir/venv" "$dir/nodes"
	python3 -m venv "$dir/venv"
	"$dir/venv/bin/pip" install --quiet -r "$here/requirements.txt"
	"$dir/venv/bin/python" -W ignore "$here/nodes.py" "$dir/nodes"
	cp "$here/requirements.txt" "$dir/requirements.txt"
fi
cd "$here/../.."
NPUEMU_ONNX_NODES=$dir/nodes go test ./tests/compiler -count=1 -run '^TestNodes$' -v -update
