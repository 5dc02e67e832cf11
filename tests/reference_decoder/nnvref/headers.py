# SPDX-License-Identifier: MPL-2.0
"""Sections 3 and 4: sequence header, frame header, parts."""

from dataclasses import dataclass, field

from .bits import ByteReader, Damage, Unsupported

KEY, INTER, REPEAT = 0, 1, 2
TYPE_NAMES = {KEY: "key", INTER: "inter", REPEAT: "repeat"}
FURTHER = 3  # in the stream alone: an inter frame with further flags
# Section 13: luma samples, and pictures of that size in a second, of levels 1, 2 ...
LEVELS = [
    (147456, 30),
    (414720, 30),
    (983040, 30),
    (983040, 60),
    (2228224, 30),
    (2228224, 60),
    (8912896, 30),
    (8912896, 60),
    (35651584, 30),
    (35651584, 60),
]
UNBOUNDED = 255
NAME_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._-")


def need(condition, what):
    if not condition:
        raise Damage(what)


@dataclass
class Sequence:
    bundle: str
    bundle_hash: bytes
    all_checked: bool
    width: int
    height: int
    crop: tuple  # left, top, right, bottom
    rate: tuple | None  # numerator, denominator
    aspect: tuple
    grey: bool
    bit_depth: int
    colour: tuple  # primaries, transfer, matrix, range, chroma site
    mastering: tuple | None
    light: tuple | None
    max_reorder: int
    mini_gop: int
    max_references: int
    key_interval: int
    inter_streams: int
    key_streams: int
    level: int | None  # None: not stated
    macs: int | None

    @property
    def h16(self):
        return (self.height + 15) // 16

    @property
    def w16(self):
        return (self.width + 15) // 16


def lowest_level(samples, rate, kept, macs):
    """Section 13: the lowest level that allows pictures of so many samples at this rate, so many
    pictures beside the one in work, and so many multiplications a sample."""
    numerator, denominator = rate if rate[0] else (30, 1)
    second = samples * numerator
    for number, (most, frames) in enumerate(LEVELS, 1):
        bound = most * frames * denominator
        if (
            samples <= most
            and second <= bound
            and second * macs <= bound * 16000
            and samples * (48 + 3 * kept) <= most * 87
        ):
            return number
    return UNBOUNDED


def parse_sequence(unit, trace=None):
    r = ByteReader(unit.payload, unit.payload_offset, trace, "sequence")
    need(r.bytes(4, "magic") == b"NNV1", "sequence: no magic NNV1")
    version = r.u8("version")
    if version > 1:
        raise Unsupported(f"the stream has version {version}; this decoder knows version 1")
    need(version == 1, "sequence: version 0")
    length = r.u8("name length")
    need(1 <= length <= 64, "sequence: name length")
    name = r.bytes(length, "bundle name")
    need(set(name) <= NAME_LETTERS and name[:1] != b".", "sequence: bundle name")
    bundle_hash = r.bytes(8, "bundle hash")
    flags = r.u8("flags")
    need(flags < 16, "sequence: unknown flags")
    width = r.varint("width", 1, 16384)
    height = r.varint("height", 1, 16384)
    crop = tuple(r.varint(f"crop {side}") for side in ("left", "top", "right", "bottom"))
    need(crop[0] % 2 == 0 and crop[1] % 2 == 0, "sequence: odd crop")
    need(crop[0] + crop[2] < width and crop[1] + crop[3] < height, "sequence: all is cropped")
    most = (1 << 31) - 1
    rate = r.varint("frame rate numerator", 0, most), r.varint("frame rate denominator", 1, most)
    aspect = r.varint("aspect numerator", 1, most), r.varint("aspect denominator", 1, most)
    chroma = r.u8("chroma format")
    need(chroma <= 1, "sequence: chroma format")
    bit_depth = r.u8("bit depth")
    need(bit_depth in (8, 10), "sequence: bit depth")
    colour = tuple(r.u8(n) for n in ("primaries", "transfer", "matrix", "range", "chroma site"))
    need(colour[3] <= 2, "sequence: range")
    need(colour[4] <= 5 or colour[4] == 255, "sequence: chroma site")
    mastering = light = None
    if flags & 1:
        mastering = tuple(r.u16("mastering chromaticity") for _ in range(8))
        mastering += tuple(r.u32("mastering luminance") for _ in range(2))
    if flags & 2:
        light = tuple(r.u16("content light") for _ in range(2))
    max_reorder = r.u8("max reorder")
    need(max_reorder <= 7, "sequence: max reorder")
    mini_gop = r.u8("mini-GOP")
    need(1 <= mini_gop <= 8, "sequence: mini-GOP")
    max_references = r.u8("max references")
    need(1 <= max_references <= 8, "sequence: max references")
    key_interval = r.varint("key interval", 0, most)
    streams = r.u8("y streams")
    need(streams < 64, "sequence: y streams")
    level = macs = None
    if flags & 8:
        level = r.u8("level")
        macs = r.varint("cost", 0, most)
        samples = 256 * ((width + 15) // 16) * ((height + 15) // 16)
        kept = max_references + max_reorder
        lowest = lowest_level(samples, rate, kept, macs)
        need(level > 0, "sequence: level")
        if level > len(LEVELS):  # a later one
            level = UNBOUNDED
        need(level >= lowest, "sequence: a level that does not hold it")
    need(not r.rest(), "sequence: trailing bytes")
    return Sequence(
        name.decode("ascii"),
        bundle_hash,
        bool(flags & 4),
        width,
        height,
        crop,
        rate if rate[0] else None,
        aspect,
        chroma == 0,
        bit_depth,
        colour,
        mastering,
        light,
        max_reorder,
        mini_gop,
        max_references,
        key_interval,
        1 + (streams & 7),
        1 + (streams >> 3),
        level,
        macs,
    )


@dataclass
class Part:
    data: bytes
    offset: int


@dataclass
class FrameHeader:
    type: int
    keep: bool
    level: int
    contexts: int
    group: int
    quantizer: int
    has_map: bool
    has_ink: bool
    has_still: bool
    number: int
    refs: list  # numbers of ref0, ref1
    released: list
    key_check: int | None
    pts: int | None
    duration: int | None
    checksum: int | None
    # What the key check of later frames covers: the byte *quantizer* and all behind the header.
    identity: tuple = field(repr=False)
    body: Part = field(repr=False)


def parse_frame(unit, trace=None):
    r = ByteReader(unit.payload, unit.payload_offset, trace, "frame")
    flags = r.u8("flags")
    kind, keep = flags & 3, bool(flags & 4)
    second = r.u8("level and contexts")
    level, released_count, contexts = second & 7, second >> 3 & 7, second >> 6
    group = r.u8("group")
    third = r.u8("quantizer")
    quantizer, has_ink, has_check = third & 63, bool(third & 64), bool(third & 128)
    has_map = bool(flags & 128)
    has_still = False
    if kind == FURTHER:
        kind, further = INTER, r.u8("further flags")
        unknown = further & ~1
        if unknown:
            raise Unsupported(f"a frame has the further flags {unknown:#04x}: of a later version")
        # Without any it would be another form of type 1.
        need(further, "frame: type 3 without further flags")
        has_still = bool(further & 1)
    number, refs, released = 0, [], []
    if kind == KEY:
        need(level == 0 and keep and not flags & 64, "frame: no header of a key frame")
        need(released_count == 0 and contexts == 0, "frame: no header of a key frame")
    else:
        number = r.varint("number", 1, (1 << 30) - 1)
        names = ["ref0"]
        if flags & 64:
            need(kind == INTER, "frame: a repeat with two references")
            names.append("ref1")
        for name in names:
            other = number - r.svarint(name)
            need(0 <= other < 1 << 30 and other != number, f"frame: {name}")
            need(other not in refs, "frame: twice the same reference")
            refs.append(other)
        need(contexts <= len(refs), "frame: contexts of a reference that it has not")
        for _ in range(released_count):
            other = number - r.svarint("released")
            need(0 <= other < 1 << 30 and other != number, "frame: released")
            need(other not in released, "frame: released twice")
            released.append(other)
    if kind == REPEAT:
        need(not keep and contexts == 0, "frame: a repeat that is kept or has contexts")
        need(quantizer == 0 and not has_ink and not has_map, "frame: a repeat with parts")
    key_check = None
    if has_check:
        need(0 in refs, "frame: key check without a reference to the key frame")
        key_check = r.u16("key check")
    pts = r.svarint("pts") if flags & 16 else None
    duration = r.varint("duration", 0, (1 << 63) - 1) if flags & 32 else None
    checksum = r.u32("checksum") if flags & 8 else None
    body = r.rest()
    need(kind != REPEAT or not body, "frame: a repeat with parts")
    return FrameHeader(
        kind,
        keep,
        level,
        contexts,
        group,
        quantizer,
        has_map,
        has_ink,
        has_still,
        number,
        refs,
        released,
        key_check,
        pts,
        duration,
        checksum,
        (bytes([third]), body),
        Part(body, unit.payload_offset + r.pos),
    )


def split_parts(header, sequence, trace=None):
    """The parts by name; `y` is a list."""
    flagged = ("map", header.has_map), ("ink", header.has_ink), ("still", header.has_still)
    names = [name for name, there in flagged if there]
    names += ["z"] if header.type == KEY else ["side", "z"]
    streams = sequence.key_streams if header.type == KEY else sequence.inter_streams
    names += [f"y{i}" for i in range(streams)]
    r = ByteReader(header.body.data, header.body.offset, trace, "parts")
    lengths = [r.varint(f"length of {name.rstrip('0123456789')}") for name in names[:-1]]
    left = len(r.rest()) - sum(lengths)
    need(left >= 0, "frame: parts are longer than the unit")
    parts, pos = {"y": []}, r.pos
    for name, length in zip(names, [*lengths, left]):
        part = Part(r.data[pos : pos + length], r.offset + pos)
        pos += length
        if name[0] == "y":
            parts["y"].append(part)
        else:
            parts[name] = part
    return parts
