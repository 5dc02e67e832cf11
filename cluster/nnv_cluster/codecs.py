# SPDX-License-Identifier: MPL-2.0
"""Codecs: how settings become elements, and what of a machine decides the bytes."""

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass, field

from . import __version__
from .errors import ClusterError
from .media import gst
from .plan import file_hash


@dataclass(frozen=True)
class Codec:
    """One way to code a chunk."""

    encoder: str
    #: What stands behind the encoder, up to the file.
    behind: str
    #: Ending of a chunk's file.
    ending: str
    #: Caps of a joined stream, None where `nnv join` joins.
    caps: str
    parser: str
    #: Largest quantizer.
    worst: int
    #: Libraries that decide the bytes, by a part of their file's name.
    libraries: tuple
    #: Whether the number of threads changes the bytes.
    threads_count: bool


CODECS = {
    "nnv": Codec(
        "nnvenc", "", "nnv", None, "nnvparse", 63, ("libonnxruntime",), False
    ),
    "x264": Codec(
        "x264enc", "h264parse ! mp4mux", "mp4",
        "video/x-h264,stream-format=avc,alignment=au", "h264parse", 50, ("libx264",), True,
    ),
    "x265": Codec(
        "x265enc", "h265parse ! mp4mux", "mp4",
        "video/x-h265,stream-format=hvc1,alignment=au", "h265parse", 51, ("libx265",), True,
    ),
    "svtav1": Codec(
        "svtav1enc", "av1parse ! mp4mux", "mp4",
        "video/x-av1,stream-format=obu-stream,alignment=tu", "av1parse", 63, ("libSvtAv1",), True,
    ),
}
# A group of pictures ends with its chunk: the encoder's own limit must not come before.
NO_LIMIT = 100_000


@dataclass(frozen=True)
class Settings:
    """What a user asks for, but for the quantizer, which is a chunk's own."""

    codec: str = "nnv"
    threads: int = 1
    #: Further properties of the encoder, in order of their names.
    properties: tuple = field(default_factory=tuple)

    def identity(self):
        """What of the settings decides the bytes."""
        values = asdict(self)
        if not CODECS[self.codec].threads_count:
            del values["threads"]
        return values

    def encoder(self, quantizer):
        """The encoder `e`, in gst-launch's notation."""
        codec = CODECS[self.codec]
        own = {
            "nnv": f"nnvenc name=e rate-control=cq quantizer={quantizer} key-int-max=0 "
            f"execution-provider=cpu threads={self.threads}",
            "x264": f"x264enc name=e pass=qual quantizer={quantizer} threads={self.threads} "
            f"key-int-max={NO_LIMIT}",
            "x265": f"x265enc name=e key-int-max={NO_LIMIT} option-string=crf={quantizer}:"
            f"open-gop=0:frame-threads=1:pools={self.threads}:info=0",
            "svtav1": f"svtav1enc name=e crf={quantizer} intra-period-length=-1 "
            f"logical-processors={self.threads}",
        }[self.codec]
        further = " ".join(f"{name}={quoted(value)}" for name, value in self.properties)
        return f"{own} {further} ! {codec.behind} " if codec.behind else f"{own} {further} "

    def check(self):
        """Raises ClusterError for what this machine's encoder does not have."""
        gst_module, _ = gst()
        codec = CODECS[self.codec]
        for name in (codec.encoder, codec.parser):
            if gst_module.ElementFactory.find(name) is None:
                raise ClusterError(
                    f"codec {self.codec} needs the element {name}, which {platform.node()} lacks; "
                    "see gst-inspect-1.0 and GST_PLUGIN_PATH"
                )
        element = gst_module.ElementFactory.make(codec.encoder)
        ruled = {"quantizer", "rate-control", "bitrate", "pass", "threads", "key-int-max", "name"}
        for name, _ in self.properties:
            if name in ruled:
                raise ClusterError(f"--set {name}: nnv-cluster rules {name} itself")
            if element.find_property(name) is None:
                raise ClusterError(f"--set {name}: {codec.encoder} has no such property")


def quoted(value):
    """A value in gst-launch's notation."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def job_key(plan, chunk, settings, quantizer, versions):
    """Name of a finished chunk: whatever decides its bytes, hashed."""
    facts = {
        "source": plan.hash,
        "first": chunk.first,
        "count": chunk.count,
        "pictures": chunk.pictures,
        "settings": settings.identity(),
        "quantizer": quantizer,
        "versions": versions["software"],
    }
    data = json.dumps(facts, sort_keys=True).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def loaded(parts):
    """Files of this process whose names contain one of `parts`."""
    found = set()
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            path = line.split(None, 5)[5].strip() if line.count("/") else ""
            if path.startswith("/") and any(part in os.path.basename(path) for part in parts):
                found.add(path)
    return found


def versions(settings):
    """What of this machine decides the bytes: `{"software": {name: hash}, "processor": name}`.

    Raises ClusterError where the codec's element is missing.
    """
    gst_module, _ = gst()
    settings.check()
    codec = CODECS[settings.codec]
    software = {
        "nnv-cluster": __version__,
        "GStreamer": gst_module.version_string(),
    }
    factory = gst_module.ElementFactory.find(codec.encoder).load()
    plugin = factory.get_plugin()
    software[f"plugin of {codec.encoder}"] = file_hash(plugin.get_filename())
    library = os.environ.get("NNV_ORT_LIBRARY")
    files = loaded(codec.libraries)
    if settings.codec == "nnv" and library:
        files.add(library)
    for path in sorted(os.path.realpath(path) for path in files):
        software[os.path.basename(path).split(".so")[0]] = file_hash(path)
    for name, value in settings.properties:
        if name == "model-path":
            digest = hashlib.blake2b(digest_size=16)
            if not os.path.isfile(os.path.join(value, "bundle.toml")):
                raise ClusterError(f"model-path {value}: no bundle.toml there; every node needs it")
            for entry in sorted(os.listdir(value)):
                path = os.path.join(value, entry)
                if os.path.isfile(path):
                    digest.update(f"{entry}:{file_hash(path)}\n".encode())
            software["bundle"] = digest.hexdigest()
    return {"software": software, "processor": processor()}


def processor():
    """Name of the processor: floating point in encoders may differ between kinds."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()
