# SPDX-License-Identifier: MPL-2.0
"""Section 2: units, resynchronisation, access units."""

from dataclasses import dataclass

from .bits import ByteReader, Damage, crc32c

START = b"\x8e\x4e\x56"
SEQUENCE, FRAME, FILLER = 1, 2, 3
UNITS_BEFORE_FRAME = 16
# From this type on, what a decoder does not know must not be passed over.
FIRST_CRITICAL = 128


@dataclass
class Unit:
    type: int
    offset: int  # of the start code in the file
    payload: bytes
    payload_offset: int

    @property
    def end(self):
        return self.payload_offset + len(self.payload) + 4


def longest_payload(unit_type, frame_limit):
    """`frame_limit`: the longest frame unit of the pictures' size, None where no size is known."""
    frame = (1 << 28) - 1 if frame_limit is None else frame_limit
    return {SEQUENCE: 4096, FRAME: frame}.get(unit_type, max(65536, frame))


def frame_limit(width, height):
    up = lambda size: (size + 15) // 16 * 16  # noqa: E731
    return 3 * up(width) * up(height) + 4096


def unit_at(data, pos, limit, trace=None):
    """The sound unit that begins at `pos`, or None."""
    if data[pos : pos + 3] != START:
        return None
    reader = ByteReader(data[pos + 3 : pos + 3 + 6], pos + 3, None, "unit")
    try:
        unit_type = reader.u8("type")
        length = reader.varint("length", 0, (1 << 28) - 1)
        covered = data[pos + 3 : pos + 3 + reader.pos]
        check = reader.u8("header check")
    except Damage:
        return None
    begin = pos + 3 + reader.pos
    if check != crc32c(covered) & 0xFF or length > longest_payload(unit_type, limit):
        return None
    payload, end = data[begin : begin + length], begin + length
    if end + 4 > len(data):
        return None
    checksum = int.from_bytes(data[end : end + 4], "big")
    if checksum != crc32c(covered, payload):
        return None
    if trace:
        trace.element(8 * pos, "unit", "type", (), unit_type)
        trace.element(8 * (pos + 4), "unit", "length", (), length)
        trace.element(8 * (begin - 1), "unit", "header check", (), check)
        trace.element(8 * end, "unit", "checksum", (), checksum)
    return Unit(unit_type, pos, payload, begin)


class UnitReader:
    """Yields units; what is none of them is passed over and told to `damaged(begin, end)`.

    `limit` is set by whoever reads the sequence headers.
    """

    def __init__(self, data, damaged, trace=None):
        self.data, self.damaged, self.trace = data, damaged, trace
        self.limit = None

    def __iter__(self):
        pos = bad = 0
        while pos < len(self.data):
            unit = unit_at(self.data, pos, self.limit, self.trace)
            if unit:
                if bad < pos:
                    self.damaged(bad, pos)
                yield unit
                pos = bad = unit.end
            else:
                # After the start code that failed, not after the length that it claimed.
                pos = self.data.find(START, pos + 1)
                pos = len(self.data) if pos < 0 else pos
        if bad < pos:
            self.damaged(bad, pos)


@dataclass
class AccessUnit:
    sequence: Unit | None
    frame: Unit


def access_units(units, report):
    """Groups units. What cannot stand in an access unit is told to `report` and dropped."""
    sequence, count, end = None, 0, 0
    refused = False
    for unit in units:
        if unit.offset != end and count:
            report(f"damage within the access unit before {unit.offset}")
            sequence, count = None, 0
        end = unit.end
        if unit.type >= FIRST_CRITICAL:
            report(f"a unit of type {unit.type} at {unit.offset}: an unknown feature, refused")
            sequence, count, refused = None, 0, True
            continue
        if unit.type == FRAME and refused:
            count = 0
            continue
        if unit.type == FRAME:
            if count > UNITS_BEFORE_FRAME:
                report(f"{count} units before the frame unit at {unit.offset}, not at most 16")
            else:
                yield AccessUnit(sequence, unit)
            sequence, count = None, 0
            continue
        count += 1
        if unit.type == SEQUENCE:
            refused = False
            if sequence:
                report(f"two sequence headers before one frame unit, at {unit.offset}")
            sequence = unit
    if sequence or count:
        report("the stream ends within an access unit")
