#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run models in ONNX Runtime when told so, so that another program can take turns with it.

usage: framework.py DIRECTORY THREADS

Standard input has a command on each line, and each is answered by a line: "load NAME" by the version, "run" by the nanoseconds
that the run of the first sample took.
"""

import os
import sys
import time

import numpy as np
import onnxruntime

from net import session


def first(path, tensor):
    """The first sample of an input; zeros where there are none, as for the step of a language model."""
    if os.path.exists(path):
        return np.load(path, mmap_mode="r")[0]
    return np.zeros(tensor.shape, {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}[tensor.type])


def main():
    directory, threads = sys.argv[1], int(sys.argv[2])
    s, feed = None, None
    for line in sys.stdin:
        command = line.split()
        if command[0] == "load":
            base = os.path.join(directory, command[1])
            s = session(base + ".onnx", threads)
            feed = {i.name: np.array(first(f"{base}.{i.name}.npy", i)) for i in s.get_inputs()}
            s.run(None, feed)
            print(onnxruntime.__version__, flush=True)
        else:
            begin = time.perf_counter_ns()
            s.run(None, feed)
            print(time.perf_counter_ns() - begin, flush=True)


if __name__ == "__main__":
    main()
