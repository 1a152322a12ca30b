# SPDX-License-Identifier: Apache-2.0
"""Tests of the package with nothing but the standard library: numpy cannot be imported here.

usage: NPUEMU_LIB=…/libnpuemu.so PYTHONPATH=python python3 stdlib.py
"""

import array
import copy
import gc
import json
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock

sys.modules["numpy"] = None  # type: ignore[assignment]

import npuemu  # noqa: E402

ADD = """graph "add"
input %x: int32[2, 4]
input %y: int32[4]
node "sum" npu.element(%x, %y) -> (%z: int32[2, 4]) {op="add"}
output %z
""".encode()

HOST = """graph "host"
input %x: int64[4]
node "n" host.element(%x) -> (%y: int64[4]) {op="neg"}
output %y
""".encode()

# Some seconds of work: products that need each other.
SLOW = "graph \"slow\"\ninput %x0: float32[1, 512, 512]\n" + "".join(
    f'node "n{i}" npu.gemm(%x{i}, %x0) -> (%x{i + 1}: float32[1, 512, 512]) {{rounding="none"}}\n' for i in range(300)
) + "output %x300\n"


def ints(*values):
    return array.array("i", values)


class Test(unittest.TestCase):
    def setUp(self):
        self.device = npuemu.Device()
        self.addCleanup(self.device.close)

    def fails(self, kind, *texts):
        test = self

        class Check:
            def __enter__(self):
                return self

            def __exit__(self, _type, e, _traceback):
                if not isinstance(e, npuemu.Error):
                    if e is None:
                        test.fail(f"no error of kind {kind}")
                    return False
                test.assertEqual(e.kind, kind, str(e))
                for t in texts:
                    test.assertIn(t, str(e))
                return True

        return Check()

    def test_run(self):
        m = self.device.load(ADD, format="npuir")
        self.assertEqual(m.inputs, [npuemu.Tensor("x", "int32", (2, 4)), npuemu.Tensor("y", "int32", (4,))])
        self.assertEqual(m.outputs, [npuemu.Tensor("z", "int32", (2, 4))])
        x, y = ints(*range(8)), ints(10, 20, 30, 40)
        for r in (m.run(x, y), m.run({"y": y, "x": x}), m.run(bytes(x), memoryview(y)), m(bytearray(x), y)):
            self.assertEqual(r["z"].tolist(), [[10, 21, 32, 43], [14, 25, 36, 47]])
            self.assertEqual(r.counters["programs"], 1)
            self.assertGreater(r.counters["instructions"], 1)
            self.assertEqual(r.counters["bytes_written"] > 0, True)
            self.assertEqual(r.hosts, [])
        self.assertEqual(r.outputs[0].shape, (2, 4))
        self.assertEqual(self.device.counters["programs"], 4)
        self.assertEqual(self.device.findings, [])
        m.close()
        self.device.close()
        self.assertEqual([o["op"] for o in r.operators], ["element"], "results outlive the model")
        self.assertEqual((r.operators[0]["engine"], r.operators[0]["device"]), ("vector", True))
        self.assertGreater(r.operators[0]["cycles"], 0)

    def test_host_is_named(self):
        m = self.device.load(HOST, format="npuir")
        r = m.run(array.array("q", [1, -2, 3, 4]))
        self.assertEqual(r.outputs[0].tolist(), [-1, 2, -3, -4])
        self.assertEqual(r.hosts, ["n"])
        self.assertEqual((r.operators[0]["engine"], r.operators[0]["device"], r.counters["programs"]), ("host", False, 0))
        self.assertTrue(r.operators[0]["reason"])
        self.assertEqual((r.launches, r.untimed), ([], None))

    def test_compile(self):
        with tempfile.TemporaryDirectory() as d:
            name = os.path.join(d, "add.npu")
            b = npuemu.compile(ADD, name, format="npuir")
            with open(name, "rb") as f:
                self.assertEqual(f.read(), b)
            self.assertEqual(os.listdir(d), ["add.npu"])
            for m in (self.device.load(name), self.device.load(b, format="npu")):
                self.assertEqual(m.run(ints(*[1] * 8), ints(*[2] * 4)).outputs[0].tolist(), [[3] * 4] * 2)
            small = os.path.join(d, "small.toml")
            with open(small, "w") as f:
                f.write("[array]\nrows = 16\ncols = 16\n")
            b16 = npuemu.compile(ADD, config=small, format="npuir")
            with self.fails("model", "16 × 16", "32 × 32"):
                self.device.load(b16, format="npu")
            with npuemu.Device(config=small) as other:
                self.assertEqual(other.load(b16, format="npu").report["array"]["rows"], 16)
            for i in range(0, len(b), 97):
                with self.fails("model"):
                    self.device.load(b[:i] or b"\0", format="npu")
            with self.fails("file", "no-such"):
                npuemu.compile(ADD, os.path.join(d, "no-such", "add.npu"), format="npuir")

    def test_time(self):
        with npuemu.Device(time="timed") as timed:
            x = ints(*range(8)), ints(1, 2, 3, 4)
            a, b = timed.load(ADD, format="npuir").run(*x), self.device.load(ADD, format="npuir").run(*x)
            self.assertGreater(a.counters["cycles"], a.operators[0]["cycles"], "a command has more than its program")
            self.assertEqual(b.counters["cycles"], 0)
            self.assertEqual(a.outputs[0].tolist(), b.outputs[0].tolist())
            self.assertEqual((a.untimed, [n["program"] for n in a.launches]), (None, [0]))
            p = a.launches[0]["profile"]
            self.assertEqual(a.launches[0]["cycles"], a.counters["cycles"])
            self.assertEqual((p["timed"], p["instructions"], p["macs"]), (True, a.counters["instructions"], 0))
            self.assertEqual([e["engine"] for e in p["engines"]], ["load", "store", "matrix", "vector"])
            self.assertEqual([e["instructions"] for e in p["engines"]], a.operators[0]["instructions"])
            self.assertGreater(p["engines"][3]["busy"], 0)
            self.assertGreater(p["engines"][3]["stalls"]["load"], 0)
            self.assertIn("fast", b.untimed)
            self.assertEqual((b.launches[0]["cycles"], b.launches[0]["profile"]["timed"]), (0, False))
            self.assertEqual(b.launches[0]["profile"]["bytes_stored"], 32)

    def test_timeline(self):
        m = self.device.load(HOST, format="npuir")
        n = self.device.load(ADD, format="npuir")
        with tempfile.TemporaryDirectory() as d:
            name = os.path.join(d, "t.json")

            def end(model, **options):
                merged = model.timeline(name, **options)
                with open(name) as f:
                    t = json.load(f)
                self.assertEqual(t["otherData"]["merged_instructions"], merged)
                self.assertEqual(os.listdir(d), ["t.json"])
                return max((e["ts"] + e["dur"] for e in t["traceEvents"] if e["ph"] == "X" and e["tid"] == 1), default=0), t, merged

            cycles, t, merged = end(n)
            self.assertEqual((cycles, merged), (n.report["cycles"], 0))
            self.assertEqual({e["args"].get("operator") for e in t["traceEvents"] if e["name"] == "element"}, {"sum"})
            self.assertEqual({e["args"]["tensor"] for e in t["traceEvents"] if e["ph"] == "X" and e["name"] in ("load", "store")}, {"x", "y", "z"})
            self.assertGreater(end(n, bus=True)[0], cycles)
            self.assertEqual((end(n, limit=1)[0], end(n, limit=1)[2] > 0), (cycles, True))
            self.assertEqual(end(m)[0], 0)
            self.assertEqual([e["name"] for e in end(m)[1]["traceEvents"] if e["ph"] == "i"], ["host: n"])
            for kind, texts, f in (
                ("argument", ["limit 0: use 1 or more"], lambda: n.timeline(name, limit=0)),
                ("argument", ["limit -1"], lambda: n.timeline(name, limit=-1)),
                ("argument", ["path is NULL"], lambda: n.timeline(None)),
                ("argument", ["without a 0"], lambda: n.timeline("a\0.json")),
                ("argument", ["seconds above 0"], lambda: n.timeline(name, timeout=0)),
                ("file", [os.path.join(d, "no", "t.json")], lambda: n.timeline(os.path.join(d, "no", "t.json"))),
                ("file", ["is a directory"], lambda: n.timeline(d)),
                ("file", ["no space left"], lambda: n.timeline("/dev/full")),
            ):
                with self.subTest(texts=texts), self.fails(kind, *texts):
                    f()
            n.close()
            with self.fails("handle", "closed"):
                n.timeline(name)
            self.assertEqual(os.listdir(d), ["t.json"])

    def test_finalizer_between(self):
        """A finalizer that fails, of a model whose device is closed, does not replace the text of another failure."""
        m = self.device.load(ADD, format="npuir")
        text = npuemu._lib._text
        for thread in (False, True):  # a call in this thread, and one that signals can interrupt
            device = npuemu.Device()
            orphan = device.load(ADD, format="npuir")
            device.close()

            def later(orphan=orphan):
                orphan._finalizer()
                return text()

            with self.subTest(thread=thread), unittest.mock.patch.object(npuemu._lib, "_text", later):
                with self.fails("argument", "path is NULL") if thread else self.fails("handle", "never given out"):
                    m.timeline(None) if thread else npuemu._lib.call(npuemu._lib.library().npuemu_unload, 5)
            self.assertFalse(orphan._finalizer.alive)

    def test_bad_calls(self):
        m = self.device.load(ADD, format="npuir")
        x, y = ints(*range(8)), ints(1, 2, 3, 4)
        for kind, texts, f in (
            ("buffer", ["1 inputs are given", "x: int32[2, 4], y: int32[4]"], lambda: m.run(x)),
            ("buffer", ["'y'", "12 bytes", "has 16"], lambda: m.run(x, y[:3])),
            ("buffer", ["'y'", "format 'f'"], lambda: m.run(x, array.array("f", y))),
            ("buffer", ["'x' is a list"], lambda: m.run([1] * 8, y)),
            ("buffer", ["['q']", "['y'] are missing"], lambda: m.run({"x": x, "q": y})),
            ("file", ["no-such.onnx"], lambda: self.device.load("no-such.onnx")),
            ("model", ["says of no model what it is", ".onnx"], lambda: self.device.load("model.pt")),
            ("argument", ["needs format="], lambda: self.device.load(ADD)),
            ("model", ["the model is empty"], lambda: self.device.load(b"", format="onnx")),
            ("model", ["opset"], lambda: self.device.load(b"\x3a\x00", format="onnx")),
            ("model", ['format "pt"'], lambda: self.device.load(ADD, format="pt")),
            ("model", ["TFL3"], lambda: self.device.load(ADD, format="tflite")),
            ("model", ["two files"], lambda: self.device.load(b"name: 'x'", format="caffe")),
            ("argument", ["3 parts"], lambda: self.device.load(("a", "b", "c"))),
            ("argument", ["model is a int"], lambda: self.device.load(5)),
            ("argument", ["without a 0"], lambda: self.device.load("a\0.onnx")),
            ("model", ["shapes for ONNX", "npuir"], lambda: self.device.load(ADD, format="npuir", shapes={"x": [1]})),
            ("argument", ["sizes are 0 or more"], lambda: self.device.load(ADD, format="onnx", shapes={"x": [-1]})),
            ("argument", ["give {"], lambda: self.device.load(ADD, format="onnx", dims={"n": "two"})),
            ("argument", ['products of "fp8"'], lambda: self.device.load(ADD, format="onnx", dtype="fp8")),
            ("argument", ["seconds above 0"], lambda: m.run(x, y, timeout=0)),
            ("device", ['card "gpu"', "use in-process"], lambda: npuemu.Device("gpu")),
            ("device", ["/no/such/socket"], lambda: npuemu.Device("vfio-user:/no/such/socket")),
            ("device", ["/dev/accel/accel99"], lambda: npuemu.Device("/dev/accel/accel99")),
            ("argument", ['mode "slow"'], lambda: npuemu.Device(time="slow")),
            ("argument", ["multiple of 4096"], lambda: npuemu.Device(memory=5000)),
            ("device", ["bytes"], lambda: npuemu.Device(memory=4096)),
            ("file", ["no-such.toml"], lambda: npuemu.Device(config="no-such.toml")),
            ("file", ["/no/such/trace"], lambda: npuemu.Device(trace="/no/such/trace")),
        ):
            with self.subTest(texts=texts), self.fails(kind, *texts):
                f()
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as f:
            f.write("[array]\nrows = 7\n")
            f.flush()
            with self.fails("config", "multiple of 8"):
                npuemu.Device(config=f.name)
        self.assertEqual(m.run(x, y).outputs[0].tolist()[0], [1, 3, 5, 7], "the device goes on")

    def test_closed(self):
        m = self.device.load(ADD, format="npuir")
        n = self.device.load(ADD, format="npuir")
        n.close()
        n.close()
        with self.fails("handle", "closed"):
            n.run(ints(*range(8)), ints(1, 2, 3, 4))
        self.device.close()
        self.device.close()
        with self.fails("handle", "closed"):
            m.run(ints(*range(8)), ints(1, 2, 3, 4))
        with self.fails("handle", "closed"):
            self.device.load(ADD, format="npuir")
        m.close()

    def test_forgotten(self):
        """What nobody closes is closed, and a device takes any number of models."""
        device = npuemu.Device(memory=16 << 20)
        for _ in range(200):
            m = device.load(ADD, format="npuir")
            m.run(ints(*range(8)), ints(1, 2, 3, 4))
        handle = device._handle
        del m, device
        gc.collect()
        with self.fails("handle", "closed"):
            npuemu._lib.call(npuemu._lib.library().npuemu_close, handle)

    def test_pickle(self):
        m = self.device.load(ADD, format="npuir")
        for o in (m, self.device):
            for f in (pickle.dumps, copy.copy, copy.deepcopy):
                with self.assertRaisesRegex(TypeError, "cannot be pickled"):
                    f(o)
        e = pickle.loads(pickle.dumps(npuemu.Error("text", "model")))
        self.assertEqual((str(e), e.kind), ("text", "model"))

    def test_fork(self):
        def child(pipe):
            try:
                npuemu.Device()
                pipe.send("none")
            except npuemu.Error as e:
                pipe.send(e.kind)

        here, there = multiprocessing.Pipe()
        p = multiprocessing.get_context("fork").Process(target=child, args=(there,))
        p.start()
        self.assertTrue(here.poll(30), "the child hangs")
        self.assertEqual(here.recv(), "forked")
        p.join(30)
        self.assertEqual(p.exitcode, 0)

    def test_two_devices_and_threads(self):
        other = npuemu.Device()
        self.addCleanup(other.close)
        models = [d.load(ADD, format="npuir") for d in (self.device, other) for _ in range(2)]
        start = threading.Barrier(8)
        wrong = []

        def work(i):
            start.wait()
            for k in range(25):
                r = models[(i + k) % 4].run(ints(*range(i, i + 8)), ints(k, k, k, k))
                if r.outputs[0].tolist() != [[i + j + k for j in range(4)], [i + j + k for j in range(4, 8)]] or r.counters["programs"] != 1:
                    wrong.append((i, k, r.outputs[0].tolist(), r.counters))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])
        self.assertEqual(self.device.counters["programs"] + other.counters["programs"], 200)

    def test_interrupt(self):
        """An interrupt ends a run, and the device goes on."""
        slow, add = self.device.load(SLOW.encode(), format="npuir"), self.device.load(ADD, format="npuir")
        x = bytes(slow.inputs[0].nbytes)
        for delay in (0.0, 0.02, 0.2):
            begin = time.monotonic()
            with self.assertRaises(KeyboardInterrupt):
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
                while True:
                    slow.run(x)
            self.assertLess(time.monotonic() - begin, 20)
            self.assertEqual(add.run(ints(*[1] * 8), ints(*[1] * 4)).outputs[0].tolist(), [[2] * 4] * 2)
        with self.fails("timeout", "no result within 30ms"):
            slow.run(x, timeout=0.03)
        with self.assertRaisesRegex(ValueError, "enough"):
            slow.run(x, progress=self.enough)
        self.assertEqual(add.run(ints(*[1] * 8), ints(*[1] * 4)).counters["programs"], 1)

    def test_interrupts_at_any_moment(self):
        """What a signal's handler raises at any moment of a run comes out of it, and leaves nothing behind."""
        add = self.device.load(ADD, format="npuir")
        x, y = ints(*[1] * 8), ints(*[1] * 4)
        main, sent = threading.get_ident(), 30
        count, caught, inside = 0, 0, False

        class Interrupt(Exception):
            pass

        def handler(_signal, _frame):
            nonlocal count, inside
            count += 1
            if inside:
                inside = False
                raise Interrupt

        def shoot():
            for i in range(sent):
                while count < i:
                    time.sleep(0.0001)
                time.sleep(0.0001 * i)
                signal.pthread_kill(main, signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handler)
        shooter = threading.Thread(target=shoot, daemon=True)
        shooter.start()
        while count < sent:
            try:
                inside = True
                add.run(x, y)
                inside = False
            except Interrupt:
                caught += 1
        shooter.join()
        signal.signal(signal.SIGUSR1, before)
        self.assertGreater(caught, 0)
        self.assertEqual(add.run(x, y).outputs[0].tolist(), [[2] * 4] * 2)

    @staticmethod
    def enough(_done, _total):
        raise ValueError("enough")

    def test_close_during_run(self):
        slow = self.device.load(SLOW.encode(), format="npuir")
        threading.Timer(0.1, self.device.close).start()
        with self.fails("canceled", "closed meanwhile"):
            slow.run(bytes(slow.inputs[0].nbytes))

    def test_trace(self):
        with tempfile.TemporaryDirectory() as d:
            with npuemu.Device(trace=os.path.join(d, "t")) as device:
                device.load(ADD, format="npuir").run(ints(*range(8)), ints(1, 2, 3, 4))
            with open(os.path.join(d, "t")) as f:
                self.assertGreater(len(f.readlines()), 1000)


class TestLibrary(unittest.TestCase):
    def test_missing(self):
        name = npuemu._lib.path
        for path, text in (("/no/such.so", "make lib"), (os.devnull, "make lib"), ("libc.so.6", "npuemu_abi")):
            with self.assertRaises(npuemu.Error) as e:
                npuemu._lib._open(path)
            self.assertEqual(e.exception.kind, "library")
            self.assertIn(text, str(e.exception))
        self.assertIs(npuemu._lib.path, name)

    def test_version(self):
        self.assertTrue(npuemu.version())


if __name__ == "__main__":
    unittest.main()
