# SPDX-License-Identifier: MPL-2.0
"""The still map and its frames, made by hand: no encoder has a part in what is expected here."""

import numpy as np
import pytest
from nnvref.bits import Damage, Unsupported
from nnvref.entropy import RangeDecoder
from nnvref.headers import Part, parse_frame, parse_sequence
from nnvref.hyper import HyperState, decode_z
from nnvref.motion import FieldReader, MotionState
from nnvref.still import StillState, decode_still, lay_prediction
from nnvref.units import FRAME
from test_conformance import LINES, decode, stream, sums, unit, units, varint, written


class Writer:
    """Stands where a range decoder stands: gives the bits that it was made with, and codes them
    (section 5.1, the other way round)."""

    def __init__(self, bits):
        self.bits = iter(bits)
        self.p1 = []  # with which each was coded
        self.low, self.range, self.size = 0, (1 << 32) - 1, 4

    def bit(self, p1):
        bit = next(self.bits)
        self.p1.append(p1)
        bound = (self.range >> 16) * (65536 - p1)
        if bit:
            self.low += bound
            self.range -= bound
        else:
            self.range = bound
        while self.range < 1 << 24:
            self.range <<= 8
            self.low <<= 8
            self.size += 1
        return bit

    def element(self, *_):
        pass

    def finish(self):
        assert next(self.bits, None) is None, "more bits than the syntax has"

    def string(self):
        return self.low.to_bytes(self.size, "big")


def still_string(state, rows, before=None):
    writer = Writer(bit for row in rows for bit in row)
    decode_still(writer, state, len(rows), len(rows[0]), before)
    return writer


FIRST = [[0, 1, 1], [1, 1, 0]]
SECOND = [[0, 0, 1], [1, 1, 0]]
THIRD = [[1, 0, 0]]
# Of each bit the probability of a one, reckoned by hand from sections 5.2 and 5.8.
FIRST_P1 = [6000, 3000, 24000, 24000, 60000, 44000]
SECOND_P1 = [6000, 6000, 3000, 18633, 44000, 44000]
THIRD_P1 = [18633, 44767, 30358]


def test_bits_of_a_still_map():
    """Three maps, each with the state that the one before left: without a map to look back to, with
    the first one, without again."""
    maps = [(FIRST, None, FIRST_P1), (SECOND, np.array(FIRST), SECOND_P1), (THIRD, None, THIRD_P1)]
    writing, reading = StillState(), StillState()
    for rows, before, p1 in maps:
        writer = still_string(writing, rows, before)
        assert writer.p1 == p1
        d = RangeDecoder(Part(writer.string(), 0), path="still")
        assert decode_still(d, reading, len(rows), 3, before).tolist() == rows


def test_a_copied_state_keeps_what_was_learnt_and_learns_alone():
    state = StillState()
    still_string(state, FIRST)
    copy = state.copy()
    still_string(copy, FIRST)
    assert still_string(state, THIRD).p1 == THIRD_P1
    assert still_string(copy, THIRD).p1 != THIRD_P1


def test_strings_of_another_length_are_damage():
    string = still_string(StillState(), FIRST).string()
    for changed in (string + bytes(1), b"\xff" * 12):
        with pytest.raises(Damage, match="still: string of"):
            decode_still(RangeDecoder(Part(changed, 0), path="still"), StillState(), 2, 3, None)


def test_prediction_covers_four_positions_of_each_still_place():
    pic, p = np.zeros((96, 4, 6), np.int32), np.ones((96, 4, 6), np.int32)
    laid = lay_prediction(np.array(FIRST), pic, p)
    wanted = [[0, 0, 1, 1, 1, 1]] * 2 + [[1, 1, 1, 1, 0, 0]] * 2
    assert (laid == np.array(wanted)).all()


def with_further_flags(name, further, count=None):
    """A stream whose inter frames, all or the first `count`, are of type 3, with an empty string
    for the still map: zeros, which together take less than a byte."""
    out = b""
    for item in units(stream(name)):
        payload = item.payload
        if item.type == FRAME and payload[0] & 3 == 1 and count != 0:
            header = parse_frame(item)
            assert not header.has_map and not header.has_ink
            body = header.body.offset - item.payload_offset
            flags = bytes([payload[0] | 3])
            payload = flags + payload[1:4] + bytes([further]) + payload[4:body]
            payload += varint(0) + item.payload[body:]
            count = None if count is None else count - 1
        out += unit(item.type, payload)
    return out


@pytest.mark.parametrize("name", ["low-delay", "hierarchical-b"])
def test_a_map_without_still_places_changes_nothing(name, bundles):
    for count in (None, 2):
        shown, reports = decode(with_further_flags(name, 1, count), bundles)
        assert reports == []
        assert str(sums(shown)).split() == LINES[name]


@pytest.mark.parametrize("further, told", [(0x02, "0x02"), (0x83, "0x82")])
def test_unknown_further_flags_are_refused_by_number(further, told, bundles):
    with pytest.raises(Unsupported, match=f"further flags {told}: of a later version"):
        decode(with_further_flags("low-delay", further), bundles)


def test_type_3_without_further_flags_is_damage(bundles):
    shown, reports = decode(with_further_flags("low-delay", 0, 1), bundles)
    assert "type 3 without further flags" in reports[0]
    # Of two groups, of eight and of four frames: the first key frame, and the second group.
    assert len(shown) == 1 + 4


def still_stream():
    """A key frame and two inter frames that are still everywhere, without motion. The second one
    starts from the contexts that the first one left."""
    sequence, key = units(stream("key-only"))[:2]
    header, size = parse_frame(key), parse_sequence(sequence)
    assert header.checksum is not None
    rows, columns = size.h16, size.w16
    ones = np.ones((rows, columns), np.int32)
    out = written([sequence, key])
    # Of z there is the bit `present` alone, whose Probs are in no table.
    still, motion, hyper = StillState(), MotionState(), HyperState([[32768] * 15])
    field = before = None
    for number in (1, 2):
        map_string = still_string(still, ones.tolist(), before).string()
        # All regions take the likeliest candidate: no motion.
        side = Writer([1] * (-(-rows // 4) * -(-columns // 4)))
        field = FieldReader(side, motion, 2 * rows, 2 * columns, [1, 1], field).read()
        z = Writer([0])
        decode_z(z, hyper, (1, 1, 1), None)
        before = ones
        parts = [map_string, side.string(), z.string()]
        out += unit(
            FRAME,
            # Type 3, keep, checksum; one is released; contexts of ref0 from the second on.
            bytes([3 | 4 | 8, 1 << 3 | (number - 1) << 6, header.group, header.quantizer, 1])
            # Its number; ref0 and what is released are one before.
            + bytes([number, 2, 2])
            + header.checksum.to_bytes(4, "big")
            + b"".join(varint(len(part)) for part in parts)
            + b"".join(parts),  # and nothing of y
        )
    return out


def test_a_frame_that_is_still_everywhere_shows_its_reference_again(bundles):
    shown, reports = decode(still_stream(), bundles)
    assert reports == []
    assert [frame.number for frame in shown] == [0, 1, 2]
    for frame in shown[1:]:
        for plane, first in zip(frame.planes, shown[0].planes, strict=True):
            assert (plane == first).all()
