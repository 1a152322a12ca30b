#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the backend node test cases of the installed onnx wheel.

usage: nodes.py DIRECTORY

Each case becomes DIRECTORY/NAME with model.onnx, tolerance ("rtol atol"), and test_data_set_N of input_M.pb and
output_M.pb. Values that are no tensors (sequences, maps) are left out, so their cases lack data.
"""
import os
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases


def main():
    count = 0
    for case in collect_testcases(None):
        d = os.path.join(sys.argv[1], case.name)
        for i, sets in enumerate(case.data_sets):
            data = os.path.join(d, f"test_data_set_{i}")
            os.makedirs(data, exist_ok=True)
            for kind, values in zip(("input", "output"), sets):
                for j, v in enumerate(values):
                    try:
                        t = v if isinstance(v, onnx.TensorProto) else numpy_helper.from_array(np.asarray(v))
                    except (TypeError, ValueError, NotImplementedError):
                        continue
                    with open(os.path.join(data, f"{kind}_{j}.pb"), "wb") as f:
                        f.write(t.SerializeToString())
        with open(os.path.join(d, "model.onnx"), "wb") as f:
            f.write(case.model.SerializeToString())
        with open(os.path.join(d, "tolerance"), "w") as f:
            f.write(f"{case.rtol} {case.atol}\n")
        count += 1
    print(count, "cases")


main()
