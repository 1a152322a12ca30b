#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make a model, inputs for it, and what ONNX Runtime computes of them.

usage: generate.py DIRECTORY NAME ...

For each NAME of MODELS: NAME.onnx; NAME.IN.npy and NAME.OUT.npy for each input and output, with a first axis of the samples,
or for a language model's step NAME.tokens.npy and NAME.logits.npy, prompts × steps; NAME.json, which is written last.
NAME.json says what these sources and wheels were; a model whose file says the same is kept.
"""

import hashlib
import json
import os
import pathlib
import sys

import numpy as np

import language
import small
import vision
from net import onnx, output_step, session

MODELS = {
    "digits": small.digits,
    "lenet": small.lenet,
    "keywords": small.keywords,
    "mobilenet_v1": vision.mobilenet_v1,
    "mobilenet_v2": vision.mobilenet_v2,
    "resnet18": vision.resnet18,
    "resnet50": vision.resnet50,
    "mobilenet_v2_integers": vision.of_integers(vision.mobilenet_v2),
    "resnet18_integers": vision.of_integers(vision.resnet18),
    "resnet50_integers": vision.of_integers(vision.resnet50),
    "block_fp32": language.block_fp32,
    "block_fp16": language.block_fp16,
    "block_bf16": language.block_bf16,
    "block_int8": language.block_int8,
    "decode_gather": language.decode_gather,
    "decode_product": language.decode_product,
}


def stamp():
    """A hash of what a model is made by."""
    here = pathlib.Path(__file__).resolve().parent
    h = hashlib.sha256()
    ours = [here / (name + ".py") for name in ("generate", "language", "net", "small", "vision")]
    for p in [*ours, here / "requirements.txt", small.EXAMPLE / "train.py", small.EXAMPLE / "weights.bin"]:
        h.update(p.name.encode() + b"\0" + p.read_bytes())
    return h.hexdigest()


def save(base, name, arrays):
    np.save(f"{base}.{name}.npy", np.ascontiguousarray(np.stack(arrays)))


def greedy(s, prompt, steps):
    """The tokens that follow prompt, one after the other, and the logits that they were chosen by."""
    feed = {i.name: np.zeros(i.shape, np.float32) for i in s.get_inputs()}
    token, tokens, logits = np.array([prompt], np.int64), [], []
    for position in range(steps):
        feed["token"], feed["position"] = token, np.array([position], np.int32)
        out = dict(zip((o.name for o in s.get_outputs()), s.run(None, feed)))
        token = out["next"]
        tokens.append(token[0])
        logits.append(out["logits"])
        for name in feed:
            if "new_" + name in out:
                feed[name] = out["new_" + name]
    return np.array(tokens), np.stack(logits)


def main():
    out, names, now = sys.argv[1], sys.argv[2:] or list(MODELS), stamp()
    for name in names:
        base = os.path.join(out, name)
        try:
            if json.loads(pathlib.Path(base + ".json").read_text())["stamp"] == now:
                continue
        except (OSError, ValueError, KeyError):
            pass
        spec = MODELS[name]()
        onnx.save(spec["model"], base + ".onnx")
        s = session((spec.get("reference") or spec["model"]).SerializeToString())
        outputs = [o.name for o in s.get_outputs()]
        meta = {"stamp": now, "step": output_step(spec["model"]), "runs": "reference" not in spec}
        if "prompts" in spec:
            runs = [greedy(s, p, spec["steps"]) for p in spec["prompts"]]
            save(base, "tokens", [t for t, _ in runs])
            save(base, "logits", [l for _, l in runs])
            meta["prompts"] = spec["prompts"]
        else:
            results = [s.run(None, x) for x in spec["samples"]]
            for i, o in enumerate(outputs):
                save(base, o, [r[i] for r in results])
            for i in spec["samples"][0]:
                save(base, i, [x[i] for x in spec["samples"]])
        if "float" in spec:  # what quantization itself costs
            f = session(spec["float"].SerializeToString())
            meta["float"] = sum(int(f.run(None, x)[0].argmax() == r[0].argmax()) for x, r in zip(spec["samples"], results))
        if "labels" in spec:
            meta["labels"] = [int(v) for v in spec["labels"]]
        pathlib.Path(base + ".json").write_text(json.dumps(meta) + "\n")
        print(f"made {name}", flush=True)


if __name__ == "__main__":
    main()
