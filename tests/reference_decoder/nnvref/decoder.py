# SPDX-License-Identifier: MPL-2.0
"""Section 4: from access units to shown pictures."""

from dataclasses import dataclass

import numpy as np

from .bits import Damage, Unsupported, crc32c
from .frames import checksum, decode_frame
from .headers import KEY, REPEAT, TYPE_NAMES, Sequence, parse_frame, parse_sequence
from .units import UnitReader, access_units, frame_limit


@dataclass
class Shown:
    """A picture in output order, cropped, with samples 0 to 1023."""

    sequence: Sequence
    number: int
    planes: list
    pts: int | None
    duration: int | None

    @property
    def size(self):
        return self.planes[0].shape[1], self.planes[0].shape[0]

    def output(self):
        """Planes of the output's depth: bytes, or 16-bit words for 10 bits."""
        if self.sequence.bit_depth == 10:
            return [p.astype("<u2") for p in self.planes]
        return [np.minimum(255, p + 2 >> 2).astype(np.uint8) for p in self.planes]


def crop(planes, sequence):
    left, top, right, bottom = sequence.crop
    width, height = sequence.width - left - right, sequence.height - top - bottom
    result = [planes[0][top : top + height, left : left + width]]
    for plane in planes[1:]:
        rows, columns = (height + 1) // 2, (width + 1) // 2
        result.append(plane[top // 2 : top // 2 + rows, left // 2 : left // 2 + columns])
    if sequence.grey:
        # What was decoded there means nothing.
        result[1:] = [np.full_like(plane, 512) for plane in result[1:]]
    return result


class Timeline:
    """Times of a file, from frames in the order of decoding."""

    def __init__(self):
        self.shift = None  # added to times of the stream
        self.end = 0  # where the frame that ends last ends
        self.key = None  # group of the last key frame, and its time in the file

    def of(self, header, rate):
        """Time and duration in ns, None where unknown. `rate`: of the sequence in force."""
        frames = lambda n: n * 10**9 * rate[1] // rate[0] if rate else None  # noqa: E731
        duration = frames(1) if header.duration is None else header.duration
        pts = None
        if header.type == KEY:
            pts = self._key(header, duration or 0)
            self.key = header.group, pts
        elif header.pts is not None and self.shift is not None:
            pts = header.pts + self.shift
        elif self.key and rate:
            if self.key[0] != header.group:  # its key frame is lost: it came at the end
                self.key = header.group, self.end
            pts = self.key[1] + frames(header.number)
        if pts is not None:
            pts = max(pts, 0)
            self.end = max(self.end, pts + (duration or 0))
        return pts, duration

    def _key(self, header, duration):
        if header.pts is None:
            first, self.shift = self.shift is None, self.shift or 0
            return 0 if first else self.end
        if self.shift is None:
            self.shift = -header.pts
        elif header.pts + self.shift < self.end - duration // 2:
            self.shift = self.end - header.pts  # another stream was put behind
        return header.pts + self.shift


class Decoder:
    """Yields `Shown`. What is damaged or lost is told to `report(text)` and not shown."""

    def __init__(self, data, bundles, report, trace=None, most=None):
        """`most`: stop after that many decoded frames."""
        self.bundles, self.report, self.trace, self.most = bundles, report, trace, most
        self.units = UnitReader(data, self._damaged, trace)
        self.sequence = self.bundle = None
        self.times = Timeline()
        self._forget()

    def _damaged(self, begin, end):
        self.report(f"bytes {begin} to {end} are no unit")

    def _forget(self):
        """Nothing of a group is known."""
        self.group = self.key_check = None
        self.strange = False  # the frames that come belong to a key frame that is lost
        self.kept = {}  # by number
        self.waiting = {}  # decoded, not shown, by number
        self.next = 0  # number to be shown

    def __iter__(self):
        for count, unit in enumerate(access_units(self.units, self.report)):
            if count == self.most:
                # What would have come between is not lost.
                yield from (shown for _, shown in sorted(self.waiting.items()))
                return
            yield from self._access_unit(unit)
        yield from self._flush()

    def _flush(self):
        yield from self._show(len(self.waiting))
        self.waiting = {}

    def _show(self, at_least):
        """Pictures whose turn has come, and lost ones passed over for `at_least` of those held."""
        while self.waiting:
            if self.next not in self.waiting:
                if at_least <= 0:
                    return
                lost, self.next = self.next, min(self.waiting)
                self.report(f"group {self.group}: frames {lost} to {self.next - 1} are lost")
            yield self.waiting.pop(self.next)
            self.next += 1
            at_least -= 1

    def _access_unit(self, unit):
        begin = unit.frame.offset
        try:
            sequence = parse_sequence(unit.sequence, self.trace) if unit.sequence else None
            if sequence:
                if self.trace:
                    self.trace.sequence(sequence)
                self.units.limit = frame_limit(sequence.width, sequence.height)
            header = parse_frame(unit.frame, self.trace)
        except Damage as error:
            self.report(f"unit at {begin}: {error}")
            return
        if not self.sequence and not sequence:
            self.report(f"frame unit at {begin}: no sequence header")
            return
        rate = (sequence or self.sequence).rate
        times = self.times.of(header, rate)
        try:
            if header.type == KEY:
                yield from self._begin_group(header, sequence)
            elif sequence:
                raise Damage("a sequence header before a frame that is no key frame")
            else:
                self._belongs(header)
            self._decode(header, times)
        except Damage as error:
            self.report(f"frame {header.number} of group {header.group} at {begin}: {error}")
        # A frame that precedes what waits would have come by now.
        if self.sequence:
            yield from self._show(len(self.waiting) - self.sequence.max_reorder)

    def _begin_group(self, header, sequence):
        yield from self._flush()
        self._forget()
        if sequence:
            # Not earlier: frames that waited are of the sequence before.
            self.sequence = sequence
            self.bundle = self.bundles.get(sequence.bundle, sequence.bundle_hash)
        else:
            raise Damage("no sequence header before a key frame")
        self.group = header.group
        self.key_check = crc32c(*header.identity) & 0xFFFF

    def _belongs(self, header):
        if self.group is None or header.group != self.group or self.strange:
            self.strange = True
            raise Damage("its key frame is lost")
        if header.key_check not in (None, self.key_check):
            self.strange = True
            raise Damage("it refers to another key frame, which is lost")
        if header.number < self.next or header.number in self.waiting:
            self.strange = True
            raise Damage("its number goes back: its key frame is lost")

    def _decode(self, header, times):
        if self.trace:
            self.trace.frame(header)
        references = []
        for number in header.refs:
            if number not in self.kept:
                raise Damage(f"it refers to frame {number}, which is lost or was not kept")
            references.append(self.kept[number])
        if header.contexts and references[header.contexts - 1].contexts is None:
            raise Damage("it inherits from a frame that leaves nothing")
        if header.type == REPEAT:
            decoded = references[0]
        else:
            decoded = decode_frame(header, self.sequence, self.bundle, references, self.trace)
        for number in header.released:
            self.kept.pop(number, None)
        if header.keep:
            self.kept[header.number] = decoded
        if len(self.kept) > self.sequence.max_references:
            raise Damage(f"{len(self.kept)} frames are kept")
        size = self.sequence.width, self.sequence.height
        found = header.checksum is not None and checksum(decoded.planes, *size)
        if header.checksum is not None and header.checksum != found:
            wanted = f"{header.checksum:08x}"
            raise Damage(f"checksum {found:08x}, not {wanted}: a defect of this decoder")
        if header.checksum is None and self.sequence.all_checked and header.type != REPEAT:
            raise Damage("it has no checksum though all have")
        self.waiting[header.number] = Shown(
            self.sequence, header.number, crop(decoded.planes, self.sequence), *times
        )


def describe(header):
    refs = ", ".join(str(n) for n in header.refs)
    return (
        f"{TYPE_NAMES[header.type]} frame {header.number} of group {header.group}"
        f", quantizer {header.quantizer}" + (f", from {refs}" if refs else "")
    )


__all__ = ["Decoder", "Shown", "Unsupported", "describe"]
