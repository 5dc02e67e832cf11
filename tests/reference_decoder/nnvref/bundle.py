# SPDX-License-Identifier: MPL-2.0
"""Section 7: bundles, their hash, tables and known answers."""

import hashlib
import tomllib
from pathlib import Path

import numpy as np

from .bits import Unsupported, crc32c
from .networks import OnnxRuntime

HASHED = (
    "key_prior.onnx",
    "key_synth.onnx",
    "inter_prior.onnx",
    "inter_synth.onnx",
    "tables.bin",
)
GRAPHS = ("key_prior", "key_synth", "inter_prior", "inter_synth")
DTYPES = {"u8": "u1", "i8": "i1", "u16": "<u2", "i16": "<i2", "f32": "<f4"}


class Tables:
    """Those of `key.` or `inter.`."""

    NAMES = ("step", "qvec", "qoff", "y_prob", "z_prob", "y_order")

    def __init__(self, data, entries, prefix):
        for name in self.NAMES:
            entry = entries[f"{prefix}.{name}"]
            value = tensor(data, entry)
            setattr(self, name, value.astype(np.int32))
        if sorted(self.y_order) != list(range(384)):
            raise Unsupported(f"{prefix}.y_order does not hold each channel once")


def tensor(data, entry):
    count = int(np.prod(entry["shape"]))
    flat = np.frombuffer(data, DTYPES[entry["dtype"]], count, entry["offset"])
    return flat.reshape(entry["shape"])


def bundle_hash(digests):
    return hashlib.sha256(b"".join(digests)).digest()


class Bundle:
    def __init__(self, folder, runtime=OnnxRuntime):
        self.folder = Path(folder)
        self.toml = tomllib.loads((self.folder / "bundle.toml").read_text("utf-8"))
        if self.toml.get("format") != 1 or self.toml.get("kind", "codec") != "codec":
            raise Unsupported(f"{folder}: no codec bundle of format 1")
        files = {name: (self.folder / name).read_bytes() for name in HASHED}
        self.hash = bundle_hash(hashlib.sha256(files[name]).digest() for name in HASHED)
        if self.hash.hex() != self.toml["hash"]:
            raise Unsupported(f"{folder}: the files are not those that bundle.toml's hash names")
        data = files["tables.bin"]
        self.tables = {p: Tables(data, self.toml["tables"], p) for p in ("key", "inter")}
        self.hyper_channels = len(self.tables["key"].z_prob)
        self.networks = {name: runtime(files[f"{name}.onnx"]) for name in GRAPHS}
        self.check_known_answers()

    def run(self, graph, inputs):
        """Outputs by name. Inputs are cast to the graph's types, which must hold them."""
        network, feed = self.networks[graph], {}
        for name, dtype in network.inputs.items():
            feed[name] = np.ascontiguousarray(inputs[name].astype(dtype))
            if not np.array_equal(feed[name], inputs[name]):
                raise Unsupported(f"{graph}: {name} does not fit into {dtype}")
        return network.run(feed)

    def check_known_answers(self):
        data = (self.folder / "kat.bin").read_bytes()
        seen = set()
        for answer in self.toml["known_answer"]:
            graph = answer["graph"]
            if graph not in GRAPHS:
                continue
            inputs = {entry["name"]: tensor(data, entry) for entry in answer["inputs"]}
            outputs = self.run(graph, inputs)
            for entry in answer["outputs"]:
                value = outputs[entry["name"]]
                raw = value.astype(value.dtype.newbyteorder("<")).tobytes()
                if crc32c(raw) != int(entry["crc32c"], 16):
                    raise Unsupported(
                        f"{self.networks[graph].name} gives another {entry['name']} of"
                        f" {graph} than the known answer of {self.folder}: it must not decode"
                    )
            seen.add(graph)
        if seen != set(GRAPHS):
            raise Unsupported(f"{self.folder}: no known answer for {set(GRAPHS) - seen}")


class Bundles:
    """Those below a folder, loaded once each. Those of earlier versions lie in `earlier`, named by
    the first bytes of their hashes too."""

    def __init__(self, folder, runtime=OnnxRuntime):
        self.folder, self.runtime, self.loaded = Path(folder), runtime, {}

    def get(self, name, first_bytes):
        key = name, first_bytes
        if key not in self.loaded:
            folder = self.folder / "earlier" / f"{name}-{first_bytes.hex()}"
            if not folder.is_dir():
                folder = self.folder / name
            if not (folder / "bundle.toml").is_file():
                raise Unsupported(f"the stream needs the bundle {name}; it is not in {self.folder}")
            bundle = Bundle(folder, self.runtime)
            if bundle.hash[:8] != first_bytes:
                raise Unsupported(
                    f"the stream needs the bundle {name} with the hash {first_bytes.hex()}…;"
                    f" {folder} has {bundle.hash[:8].hex()}…"
                )
            self.loaded[key] = bundle
        return self.loaded[key]
