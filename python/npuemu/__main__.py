# SPDX-License-Identifier: Apache-2.0
"""The command npuemu of a wheel: the program, which is in the package."""

import os
import sys

BINARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "npuemu")


def main() -> None:
    if not os.access(BINARY, os.X_OK):
        sys.exit("npuemu: the program is in wheels only: make wheel, or make build and use bin/npuemu")
    os.execv(BINARY, ["npuemu", *sys.argv[1:]])


if __name__ == "__main__":
    main()
