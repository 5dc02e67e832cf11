# SPDX-License-Identifier: MPL-2.0
"""Section 6: from the parts of a frame to its picture; sections 5.9 and 8."""

from dataclasses import dataclass

import numpy as np

from .bits import crc32c
from .entropy import RangeDecoder
from .headers import INTER, split_parts
from .hyper import HyperState, decode_z
from .ink import decode_ink, lay_ink, lay_paper
from .latent import BandState, decode_y
from .motion import Field, FieldReader, MotionState
from .prediction import predict
from .quantizer_map import decode_map
from .still import StillState, decode_still


@dataclass
class Contexts:
    """What an inter frame leaves to those that inherit from it (section 5.9)."""

    motion: MotionState
    hyper: HyperState
    bands: list
    still: StillState
    z: np.ndarray | None = None
    magnitudes: np.ndarray | None = None


@dataclass
class Decoded:
    """A frame that others may refer to."""

    planes: list  # padded, samples 0 to 1023
    field: Field | None = None
    still: np.ndarray | None = None
    contexts: Contexts | None = None


def pack(planes):
    """Planes to `[96, H/8, W/8]`."""
    channels = []
    for plane, size in zip(planes, (8, 4, 4)):
        height, width = plane.shape
        cells = plane.reshape(height // size, size, width // size, size)
        channels.append(cells.transpose(1, 3, 0, 2).reshape(size * size, height // size, -1))
    return np.concatenate(channels)


def unpack(packed):
    planes, first = [], 0
    rows, columns = packed.shape[1:]
    for size in (8, 4, 4):
        cells = packed[first : first + size * size].reshape(size, size, rows, columns)
        planes.append(cells.transpose(2, 0, 3, 1).reshape(rows * size, columns * size))
        first += size * size
    return planes


def checksum(planes, width, height):
    """Section 8. `width`, `height`: the coded picture without its padding."""
    sizes = [(height, width)] + 2 * [((height + 1) // 2, (width + 1) // 2)]
    return crc32c(*(p[:h, :w].astype("<u2").tobytes() for p, (h, w) in zip(planes, sizes)))


def decode_frame(header, sequence, bundle, references, trace=None):
    """`references`: the `Decoded` of ref0 and ref1 where the frame has them."""
    inter = header.type == INTER
    tables = bundle.tables["inter" if inter else "key"]
    network = "inter" if inter else "key"
    h16, w16 = sequence.h16, sequence.w16
    parts = split_parts(header, sequence, trace)
    coder = lambda name: RangeDecoder(parts[name], trace, name)  # noqa: E731

    places = decode_map(coder("map"), h16, w16) if header.has_map else None
    ink = decode_ink(coder("ink"), 16 * h16, 16 * w16) if header.has_ink else None

    # Section 5.9: the state to begin with.
    source = references[header.contexts - 1].contexts if header.contexts else None
    if source:
        bands = [b.copy() for b in source.bands]
        contexts = Contexts(
            source.motion.copy(), source.hyper.copy(), bands, source.still.copy()
        )
        reference_z, co = source.z, source.magnitudes
    else:
        z_prob, y_prob = tables.z_prob.tolist(), tables.y_prob.tolist()
        bands = [BandState(y_prob) for _ in parts["y"]]
        contexts = Contexts(MotionState(), HyperState(z_prob), bands, StillState())
        reference_z = co = None

    # 1. Prediction.
    result = Decoded([])
    inputs = {}
    if inter:
        # A frame with one reference has it twice.
        numbers, both = ((v * 2)[:2] for v in (header.refs, references))
        dist = [header.number - n for n in numbers]
        dist = [n if -32768 <= n <= 32767 else 0 for n in dist]
        reader = FieldReader(
            coder("side"), contexts.motion, 2 * h16, 2 * w16, dist, both[0].field
        )
        result.field = reader.read()
        p, d = predict(result.field, [r.planes for r in both])
        if ink:
            lay_paper(ink, p, d)
        if header.has_still:
            before = both[0].still
            result.still = decode_still(coder("still"), contexts.still, h16, w16, before)
        inputs = {"p": pack(p)[None] - 512, "d": pack(d)[None]}

    # 2. The hyper-latent.
    shape = len(tables.z_prob), -(-h16 // 4), -(-w16 // 4)
    contexts.z = decode_z(coder("z"), contexts.hyper, shape, reference_z)
    z_up = contexts.z.repeat(4, axis=1).repeat(4, axis=2)[:, :h16, :w16]

    # 3. The prior.
    q, qoff = header.quantizer, tables.qoff
    inputs |= {"z_up": z_up[None], "qvec": tables.qvec[q].reshape(1, -1, 1, 1)}
    row = int(qoff[q]) + (16 if places is not None else 0)
    inputs["qoff"] = np.full((1, 1, 1, 1), row / 2)
    out = bundle.run(f"{network}_prior", inputs)
    scale_idx = out["scale_idx"][0].astype(np.int32)
    e = np.full((h16, w16), q)
    if places is not None:
        e = np.clip(q + 4 * places, 0, 63)
        taken = np.clip(row - qoff[e] >> 1, 0, 63)
        scale_idx = np.maximum(scale_idx - taken, 0)

    if result.still is not None:
        scale_idx = np.where(result.still, 0, scale_idx)

    # 4. The latent.
    y = decode_y(parts["y"], contexts.bands, tables, scale_idx, co, trace)
    contexts.magnitudes = np.minimum(np.abs(y), 15)
    step = tables.step[e].transpose(2, 0, 1)
    r = np.sign(y) * np.minimum(2047, np.abs(y) * step + 32 >> 6)

    # 5. The synthesis.
    inputs |= {"r": r[None], "feat": out["feat"]}
    rows, columns = np.indices((h16, w16))
    inputs["mask"] = (rows + columns + 1 & 1)[None, None]
    pic = bundle.run(f"{network}_synth", inputs)["pic"][0].astype(np.int32)
    if result.still is not None:
        covered = result.still.repeat(2, axis=0).repeat(2, axis=1)
        pic = np.where(covered, inputs["p"][0], pic)
    result.planes = [np.clip(plane, 0, 1023) for plane in unpack(pic + 512)]

    # 6. Ink.
    if ink:
        lay_ink(ink, result.planes)
    if inter:
        result.contexts = contexts
    return result
