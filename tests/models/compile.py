#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run a command three times; print the seconds, the seconds of processor time and the largest resident set, in KiB, of each.

A process starts with its parent's largest resident set, so this one has to be small.
"""

import os
import sys
import time

for _ in range(3):
    begin = time.perf_counter()
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(sys.argv[1:])}: status {os.waitstatus_to_exitcode(status)}")
    print(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
