#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs ONNX's backend node test cases on a card in process and writes docs/operators.md. setup.sh fetches them into the cache.
# usage: operators.sh
set -eu
cd "$(dirname "$0")/../.."
nodes=$(tests/onnx/setup.sh)
NPUEMU_ONNX_NODES=$nodes go test ./tests/compiler -count=1 -run '^TestNodes$' -v -update
