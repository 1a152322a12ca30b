#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes opencv.json: what OpenCV's dnn module computes of the digits of examples/lenet.

usage: opencv.py
"""
import json
import pathlib

import cv2
import numpy as np

here = pathlib.Path(__file__).resolve().parent
lenet = here.parent.parent / "examples" / "lenet"
net = cv2.dnn.readNetFromCaffe(str(lenet / "lenet.prototxt"), str(lenet / "lenet.caffemodel"))
net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
rows = []
for digit in range(10):
    image = cv2.imread(str(lenet / f"{digit}.png"), cv2.IMREAD_GRAYSCALE)
    net.setInput((image.astype(np.float32) / np.float32(255)).reshape(1, 1, 28, 28))
    rows.append([float(v) for v in net.forward().ravel()])
text = ",\n  ".join(json.dumps(r) for r in rows)
(here / "opencv.json").write_text(f'{{"opencv": "{cv2.__version__}", "probabilities": [\n  {text}\n]}}\n')
