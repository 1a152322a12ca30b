# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime for bench-networks: peer.py DIR runs models of DIR as it is told.

A line "NAME THREADS REPEAT" on standard input is answered with two numbers: the seconds of the fastest of so many
runs, and the mean processor time of one. Sessions are kept.
"""
import os
import sys
import time

import numpy as np
import onnxruntime as ort


def session(path, threads):
    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    o.log_severity_level = 3
    # Threads that spin after a run would take the next turn's time from the other side.
    o.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])


def main():
    directory, sessions = sys.argv[1], {}
    for line in sys.stdin:
        words = line.split()
        if words == ["version"]:
            print(ort.__version__, flush=True)
            continue
        name, threads, repeat = words[0], int(words[1]), int(words[2])
        if (name, threads) not in sessions:
            sessions[name, threads] = session(os.path.join(directory, name + ".onnx"), threads)
        s = sessions[name, threads]
        x = {"x": np.load(os.path.join(directory, name + ".x.npy"))}
        best, cpu = 1e9, time.process_time()
        for _ in range(repeat):
            begin = time.perf_counter()
            s.run(None, x)
            best = min(best, time.perf_counter() - begin)
        print(best, (time.process_time() - cpu) / repeat, flush=True)


if __name__ == "__main__":
    main()
