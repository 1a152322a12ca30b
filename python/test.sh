#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs the wheel that wheel.sh made into a virtual environment of its own and runs the tests of the package.
# usage: test.sh DIRECTORY [argument of pytest …]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(cd "$1" && pwd)
shift
venv=$dir/python-venv
if ! cmp -s "$here/tests/requirements.txt" "$venv/requirements.txt"; then
	rm -rf "$venv"
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet -r "$here/tests/requirements.txt"
	cp "$here/tests/requirements.txt" "$venv/requirements.txt"
fi
"$venv/bin/pip" install --quiet --force-reinstall --no-deps "$dir"/npuemu-*.whl
cd "$here/tests" # and not where the package's source is
"$venv/bin/python" -m mypy --config-file ../pyproject.toml ../npuemu/__init__.py ../npuemu/__main__.py ../npuemu/pytest.py
exec "$venv/bin/python" -m pytest -q "$@" .
