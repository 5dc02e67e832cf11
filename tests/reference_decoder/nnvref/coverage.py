# SPDX-License-Identifier: MPL-2.0
"""Which values of which syntax elements streams exercise, and which never."""

from .headers import INTER, KEY, TYPE_NAMES

SITES = [*range(6), 255]
MAGNITUDES = ["0", "1", "2 to 14", "escape"]
# Of an SInt: how many bits follow the prefix of its magnitude.
SIZES = ["0", "1", "2 to 3", "4 to 7", "8 to 15", "16 to 31", "32 and more"]
BITS = [0, 1]

# Section, part, element, all of its values or classes of values, in the order of the document.
ELEMENTS = [
    ("2", "unit", "type", [1, 2, 3, 4, 5, "unknown"]),
    ("2", "unit", "bytes of length", [1, 2, 3, 4]),
    ("3", "sequence", "mastering display", BITS),
    ("3", "sequence", "content light", BITS),
    ("3", "sequence", "every frame has a checksum", BITS),
    ("3", "sequence", "width modulo 16", list(range(16))),
    ("3", "sequence", "height modulo 16", list(range(16))),
    ("3", "sequence", "crop", ["none", "left", "top", "right", "bottom"]),
    ("3", "sequence", "frame rate", ["unknown", "n/1", "n/1001", "others"]),
    ("3", "sequence", "pixel aspect ratio", ["1/1", "others"]),
    ("3", "sequence", "chroma format", BITS),
    ("3", "sequence", "bit depth", [8, 10]),
    ("3", "sequence", "colours unspecified", BITS),
    ("3", "sequence", "range", [0, 1, 2]),
    ("3", "sequence", "chroma site", SITES),
    ("3", "sequence", "max reorder", list(range(8))),
    ("3", "sequence", "mini-GOP", list(range(1, 9))),
    ("3", "sequence", "max references", list(range(1, 9))),
    ("3", "sequence", "key interval", ["0", "others"]),
    ("3", "sequence", "y streams of inter frames", list(range(1, 9))),
    ("3", "sequence", "y streams of key frames", list(range(1, 9))),
    ("3", "sequence", "cost", BITS),
    ("13", "sequence", "level", [*range(1, 11), 255]),
    ("4", "frame", "type", list(TYPE_NAMES.values())),
    ("4", "frame", "keep (inter)", BITS),
    ("4", "frame", "checksum", BITS),
    ("4", "frame", "pts", ["key: none", "key: given", "others: none", "others: given", "negative"]),
    ("4", "frame", "duration", BITS),
    ("4", "frame", "references (inter)", ["one", "two, before and behind", "two, both before"]),
    ("4", "frame", "quantizer map", ["key", "inter"]),
    ("4", "frame", "ink layer", ["key", "inter"]),
    ("4", "frame", "still map (inter)", BITS),
    ("4", "frame", "level", list(range(8))),
    ("4", "frame", "released", list(range(8))),
    ("4", "frame", "contexts", [0, 1, 2]),
    ("4", "frame", "quantizer (key)", list(range(64))),
    ("4", "frame", "quantizer (inter)", list(range(64))),
    ("4", "frame", "key check", BITS),
    ("5.4", "z", "present, by context", ["0: 0", "0: 1", "1: 0", "1: 1"]),
    ("5.4", "z", "magnitude", MAGNITUDES),
    ("5.5", "y", "group flag", BITS),
    ("5.5", "y", "run flag", BITS),
    ("5.5", "y", "first", BITS),
    ("5.5", "y", "scale index of a symbol", list(range(1, 64))),
    ("5.5", "y", "magnitude", MAGNITUDES),
    ("5.5", "y", "escape, by index / 16", [0, 1, 2, 3]),
    ("5.5", "y", "sign of a single one", BITS),
    ("5.6", "map", "value", list(range(-4, 4))),
    ("5.7", "ink", "full", list(range(1, 32))),
    ("5.7", "ink", "number of papers", ["0", "1", "others"]),
    ("5.7", "ink", "number of inks", ["0", "1", "others"]),
    ("5.7", "ink", "paper's number", ["0", "1", "others"]),
    ("5.7", "ink", "ink's number", ["0", "1", "others"]),
    ("5.7", "ink", "coverage", ["0", "between", "full"]),
    ("5.8", "still", "bit, by past", [f"{c}: {b}" for c in range(3) for b in BITS]),
    ("5.8", "still", "bit, by neighbours", [f"{c}: {b}" for c in range(8) for b in BITS]),
    ("motion", "side", "region, by context", [f"{c}: {b}" for c in range(3) for b in BITS]),
    ("motion", "side", "merge, by context", [f"{c}: {b}" for c in range(9) for b in BITS]),
    ("motion", "side", "split, by context", [f"{c}: {b}" for c in range(9) for b in BITS]),
    ("motion", "side", "cell, by context", [f"{c}: {b}" for c in range(3) for b in BITS]),
    ("motion", "side", "index of a block", list(range(6))),
    ("motion", "side", "index of a cell", list(range(6))),
    ("motion", "side", "bi, by context", [f"{c}: {b}" for c in range(3) for b in BITS]),
    ("motion", "side", "second, by context", [f"{c}: {b}" for c in range(3) for b in BITS]),
    ("motion", "side", "mv x", SIZES),
    ("motion", "side", "mv y", SIZES),
    ("motion", "side", "spread", [0, 1, 2]),
]


def few(n):
    return str(n) if n < 2 else "others"


def size(n):
    n = abs(n)
    return SIZES[min(n.bit_length(), 6)]


def magnitude(n):
    n = abs(n)
    return MAGNITUDES[n if n < 2 else 2 if n < 15 else 3]


class Coverage:
    """Stands where a trace stands."""

    def __init__(self):
        self.seen = {(part, name): set() for _, part, name, _ in ELEMENTS}
        self.full = 0

    def _saw(self, part, name, value):
        self.seen[part, name].add(value)

    def element(self, _position, path, name, index, value):
        method = getattr(self, f"_{path}", None)
        if method:
            method(name, index, value)

    def _unit(self, name, _index, value):
        if name == "type":
            self._saw("unit", "type", value if 1 <= value <= 5 else "unknown")
        elif name == "length":
            self._saw("unit", "bytes of length", max(1, (value.bit_length() + 6) // 7))

    def _z(self, name, index, value):
        if name == "present":
            self._saw("z", "present, by context", f"{index[0]}: {value}")
        else:
            self._saw("z", "magnitude", magnitude(value))

    def _y(self, name, index, value):
        if name == "symbol":
            k = index[3]
            self._saw("y", "scale index of a symbol", k)
            self._saw("y", "magnitude", magnitude(value))
            if abs(value) >= 15:
                self._saw("y", "escape, by index / 16", k // 16)
        else:
            self._saw("y", {"sign": "sign of a single one"}.get(name, name), value)

    def _map(self, _name, _index, value):
        self._saw("map", "value", value)

    def _ink(self, name, _index, value):
        if name == "full":
            self.full = value
            self._saw("ink", "full", value)
        elif name == "coverage":
            self._saw("ink", name, {0: "0", self.full: "full"}.get(value, "between"))
        elif name in ("papers count", "inks count"):
            self._saw("ink", f"number of {name[:-6]}", few(value))
        elif name in ("paper number", "ink number"):
            self._saw("ink", f"{name[:-7]}'s number", few(value))

    def _still(self, _name, index, value):
        self._saw("still", "bit, by past", f"{index[0]}: {value}")
        self._saw("still", "bit, by neighbours", f"{index[1]}: {value}")

    def _side(self, name, index, value):
        if name in ("mv x", "mv y"):
            self._saw("side", name, size(value))
            self._saw("side", "spread", index[0])
        elif name in ("index0", "index1"):
            self._saw("side", f"index of a {'cell' if name[-1] == '1' else 'block'}", value)
        else:
            self._saw("side", f"{name}, by context", f"{index[0]}: {value}")

    def sequence(self, s):
        saw = lambda name, value: self._saw("sequence", name, value)  # noqa: E731
        saw("mastering display", int(s.mastering is not None))
        saw("content light", int(s.light is not None))
        saw("every frame has a checksum", int(s.all_checked))
        saw("width modulo 16", s.width % 16)
        saw("height modulo 16", s.height % 16)
        for side, value in zip(("left", "top", "right", "bottom"), s.crop):
            if value:
                saw("crop", side)
        if not any(s.crop):
            saw("crop", "none")
        denominators = {1: "n/1", 1001: "n/1001"}
        saw("frame rate", denominators.get(s.rate[1], "others") if s.rate else "unknown")
        saw("pixel aspect ratio", "1/1" if s.aspect == (1, 1) else "others")
        saw("chroma format", int(not s.grey))
        saw("bit depth", s.bit_depth)
        saw("colours unspecified", int(2 in s.colour[:3]))
        saw("range", s.colour[3])
        saw("chroma site", s.colour[4])
        saw("max reorder", s.max_reorder)
        saw("mini-GOP", s.mini_gop)
        saw("max references", s.max_references)
        saw("key interval", "others" if s.key_interval else "0")
        saw("y streams of inter frames", s.inter_streams)
        saw("y streams of key frames", s.key_streams)
        saw("cost", int(s.level is not None))
        if s.level is not None:
            saw("level", s.level)

    def frame(self, h):
        saw = lambda name, value: self._saw("frame", name, value)  # noqa: E731
        kind = TYPE_NAMES[h.type]
        saw("type", kind)
        saw("checksum", int(h.checksum is not None))
        frames = "key" if h.type == KEY else "others"
        saw("pts", f"{frames}: {'none' if h.pts is None else 'given'}")
        if (h.pts or 0) < 0:
            saw("pts", "negative")
        saw("duration", int(h.duration is not None))
        if h.has_map:
            saw("quantizer map", kind)
        if h.has_ink:
            saw("ink layer", kind)
        saw("level", h.level)
        saw("released", len(h.released))
        saw("contexts", h.contexts)
        saw("key check", int(h.key_check is not None))
        if h.type in (KEY, INTER):
            saw(f"quantizer ({kind})", h.quantizer)
        if h.type == INTER:
            saw("keep (inter)", int(h.keep))
            saw("still map (inter)", int(h.has_still))
            order = "two, before and behind" if max(h.refs) > h.number else "two, both before"
            saw("references (inter)", "one" if len(h.refs) == 1 else order)

    def table(self):
        """Lines of a Markdown table."""
        yield "| section | part | element | seen | never |"
        yield "|---|---|---|---|---|"
        for section, part, name, values in ELEMENTS:
            seen = self.seen[part, name]
            unknown = seen - set(values)
            assert not unknown, f"{part} {name}: {unknown} is not in the list"
            row = [[v for v in values if (v in seen) == wanted] for wanted in (True, False)]
            yield f"| {section} | {part} | {name} | {ranges(row[0])} | {ranges(row[1])} |"


def ranges(values):
    """`0 to 3, 7` from numbers; other values as they are."""
    if not all(isinstance(v, int) for v in values):
        return ", ".join(map(str, values))
    runs = []
    for v in values:
        if runs and v == runs[-1][1] + 1:
            runs[-1][1] = v
        else:
            runs.append([v, v])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)
