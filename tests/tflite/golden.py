#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs TensorFlow Lite models in the LiteRT interpreter, with its reference kernels and no delegate.

usage: golden.py MODELS LIST CASES

LIST names models below the directory MODELS with their SHA-256. Each becomes CASES/NAME/model.tflite with files
RUN.input.K and RUN.output.K of some runs one after the other, so that variables keep their values. Inputs are
pseudo-random from fixed seeds; vectors of int32, which are shapes, are that of the output.
"""
import hashlib
import os
import sys

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RUNS = 4


def accepted(content):
    """The model as LiteRT 2.3 takes it: it refuses biases that state the axis of their weights, which says nothing of them."""
    m = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    changed = False
    for t in m.subgraphs[0].tensors:
        q = t.quantization
        if q is not None and q.scale is not None and len(q.scale) > 1 and len(t.shape) == 1 and q.quantizedDimension != 0:
            q.quantizedDimension, changed = 0, True
    if not changed:
        return content
    b = flatbuffers.Builder(1024)
    b.Finish(m.Pack(b), b"TFL3")
    return bytes(b.Output())


def run(content, directory):
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)).subgraphs[0]
    shape = graph.tensors[graph.outputs[0]].shape
    it = Interpreter(model_content=accepted(content), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    it.allocate_tensors()
    for k in range(RUNS):
        rng = np.random.default_rng(k)
        for i, t in enumerate(it.get_input_details()):
            if t["dtype"] == np.int32 and len(t["shape"]) == 1:
                v = np.asarray(shape, np.int32)
            else:
                r = np.iinfo(t["dtype"])
                v = rng.integers(r.min, r.max + 1, t["shape"]).astype(t["dtype"])
                if k == 1:  # small numbers, near the middle
                    v = (v // 16).astype(t["dtype"])
            it.set_tensor(t["index"], v)
            open(os.path.join(directory, f"{k}.input.{i}"), "wb").write(v.tobytes())
        it.invoke()
        for i, t in enumerate(it.get_output_details()):
            open(os.path.join(directory, f"{k}.output.{i}"), "wb").write(it.get_tensor(t["index"]).tobytes())


def main():
    models, listing, cases = sys.argv[1:]
    for line in open(listing):
        words = line.split()
        if not words or words[0] in ("#", "commit"):
            continue
        digest, path = words
        content = open(os.path.join(models, path), "rb").read()
        if hashlib.sha256(content).hexdigest() != digest:
            sys.exit(f"{path}: its SHA-256 is not {digest}")
        directory = os.path.join(cases, os.path.splitext(os.path.basename(path))[0])
        os.makedirs(directory, exist_ok=True)
        open(os.path.join(directory, "model.tflite"), "wb").write(content)
        run(content, directory)


main()
