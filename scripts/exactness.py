#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Holds the decoder's networks to their known answers, under the ONNX Runtime of this Python.

    exactness.py [--levels all,basic] [--quant-off] [--time N] BUNDLE...

One line for each graph and level: exact, or how many outputs of how many differ. The exit code is
0 where all are exact. --quant-off sets session.disable_quant_qdq; --time gives the median of N runs
on latents of 60x34 places (a picture of 960x540) instead. Needs onnxruntime and numpy only, so
that it runs under emulators: scripts/exactness.sh.
"""

import argparse
import pathlib
import platform
import statistics
import sys
import time
import tomllib

import numpy as np
import onnxruntime as ort

POLYNOMIAL = 0x82F63B78
TYPES = {"u8": "uint8", "i8": "int8", "u16": "uint16", "i16": "int16", "f32": "float32"}
LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (POLYNOMIAL if n & 1 else 0)
        table.append(n)
    return table


TABLE = crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def session(path, level, quant_off, threads=1):
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if quant_off:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def stored(kat, entry):
    dtype = np.dtype(TYPES[entry["dtype"]]).newbyteorder("<")
    count = int(np.prod(entry["shape"]))
    array = np.frombuffer(kat, dtype, count, entry["offset"]).reshape(entry["shape"])
    return array.astype(dtype.newbyteorder("="))


def check(folder, level, quant_off):
    bundle = tomllib.loads((folder / "bundle.toml").read_text())
    kat = (folder / "kat.bin").read_bytes()
    wrong, total, sessions = {}, {}, {}
    for answer in bundle["known_answer"]:
        graph = answer["graph"]
        if graph not in sessions:
            sessions[graph] = session(folder / f"{graph}.onnx", level, quant_off)
        feed = {entry["name"]: stored(kat, entry) for entry in answer["inputs"]}
        names = [output["name"] for output in answer["outputs"]]
        for output, value in zip(answer["outputs"], sessions[graph].run(names, feed)):
            little = value.astype(value.dtype.newbyteorder("<"))
            right = crc32c(little.tobytes()) == int(output["crc32c"], 16)
            total[graph] = total.get(graph, 0) + 1
            wrong[graph] = wrong.get(graph, 0) + (not right)
    return {graph: (wrong[graph], total[graph]) for graph in total}


def measure(folder, level, quant_off, runs):
    """Median time of the processor for a run in ms, by graph."""
    bundle = tomllib.loads((folder / "bundle.toml").read_text())
    rng, result = np.random.default_rng(1), {}
    for answer in bundle["known_answer"]:
        graph = answer["graph"]
        if graph in result or answer["inputs"][0]["shape"][0] != 1:
            continue
        feed = {}
        for entry in answer["inputs"]:
            n, c, h, w = entry["shape"]
            # Known answers are of 4x5 places; packed pictures have twice as many.
            if (h, w) != (1, 1):
                h, w = h * 34 // 4, w * 60 // 5
            dtype = np.dtype(TYPES[entry["dtype"]])
            values = rng.integers(0, 2, (n, c, h, w)) if dtype.kind == "u" else 0
            feed[entry["name"]] = np.full((n, c, h, w), values).astype(dtype)
        run, times = session(folder / f"{graph}.onnx", level, quant_off), []
        for _ in range(runs + 1):
            begin = time.process_time()
            run.run(None, feed)
            times.append(time.process_time() - begin)
        result[graph] = statistics.median(times[1:]) * 1e3
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--levels", default="all")
    parser.add_argument("--quant-off", action="store_true")
    parser.add_argument("--time", type=int, metavar="N")
    parser.add_argument("bundle", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    failed = False
    where = f"{platform.machine()} onnxruntime {ort.__version__}"
    for folder in args.bundle:
        for level in args.levels.split(","):
            option = level + (" quant-off" if args.quant_off else "")
            if args.time:
                for graph, ms in measure(folder, level, args.quant_off, args.time).items():
                    print(f"{where}\t{folder.name}\t{graph}\t{option}\t{ms:.2f} ms", flush=True)
                continue
            for graph, (wrong, total) in check(folder, level, args.quant_off).items():
                told = f"DIFFERS {wrong} of {total}" if wrong else "exact"
                print(f"{where}\t{folder.name}\t{graph}\t{option}\t{told}", flush=True)
                failed |= wrong > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
