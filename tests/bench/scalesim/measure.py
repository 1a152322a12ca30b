# SPDX-License-Identifier: Apache-2.0
"""Runs layers through SCALE-Sim and prints what its array model says.

Usage: measure.py LAYERS.csv EVERY

Each line of LAYERS.csv is a layer, as m,n,k or as a convolution, a dataflow and
an array. Every EVERYth line comes out again, with SCALE-Sim's total cycles at
its end; standard error gets the seconds that it took in all.
"""

import contextlib
import csv
import io
import os
import sys
import tempfile
import time

from scalesim.scale_sim import scalesim

CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {cols}
IfmapSramSzkB: 65536
FilterSramSzkB: 65536
OfmapSramSzkB: 65536
IfmapOffset: 0
FilterOffset: 100000000
OfmapOffset: 200000000
Bandwidth: 10
Dataflow: {dataflow}
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def run(line, directory):
    """One line through the tool; its report's totals."""
    gemm = line["kind"] == "gemm"
    config, topology, layout = (os.path.join(directory, n) for n in ("c.cfg", "t.csv", "l.csv"))
    with open(config, "w") as f:
        f.write(CONFIG.format(**line))
    names = ["m", "n", "k"] if gemm else ["in_h", "in_w", "kernel_h", "kernel_w", "channels", "filters", "stride"]
    with open(topology, "w") as f:
        f.write("Layer," + ",".join(names) + ",\n")
        f.write("layer," + ",".join(line[n] for n in names) + ",\n")
    with open(layout, "w") as f:
        f.write("Layer,\nlayer," + "1," * 20 + "\n")
    tool = scalesim(save_disk_space=True, verbose=False, config=config, topology=topology, layout=layout, input_type_gemm=gemm)
    tool.run_scale(top_path=directory)
    layer = tool.runner.single_layer_sim_object_list[0]
    return layer.get_compute_report_items()[1:3]


def main():
    with open(sys.argv[1]) as f:
        lines = list(csv.DictReader(f))[:: int(sys.argv[2])]
    fields = list(lines[0])[:15] + ["cycles"]
    out = csv.DictWriter(sys.stdout, fields, lineterminator="\n", extrasaction="ignore")
    out.writeheader()
    cpu = time.process_time()
    for line in lines:
        with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
            cycles, stalls = run(line, directory)
        if stalls:
            sys.exit(f"{line['name']}: {stalls} stall cycles; the array model alone has none")
        line["cycles"] = int(cycles)
        out.writerow(line)
        sys.stdout.flush()
    print(f"seconds {time.process_time() - cpu:.3f}", file=sys.stderr)


if __name__ == "__main__":
    main()
