# SPDX-License-Identifier: MPL-2.0
"""The second decoder gives the MD5s of tests/conformance, and refuses what the document forbids."""

import io
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nnvref.bits import Unsupported, crc32c
from nnvref.bundle import Bundle, Bundles
from nnvref.coverage import Coverage
from nnvref.decoder import Decoder
from nnvref.entropy import LOGISTIC
from nnvref.networks import OnnxRuntime, Plain, conv
from nnvref.output import Sums
from nnvref.trace import Printer
from nnvref.units import FRAME, SEQUENCE, START, UnitReader

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STREAMS = HERE.parent / "conformance"
# Number of frames and two MD5s, by name.
LINES = {
    line.split()[0]: line.split()[1:4]
    for line in (STREAMS / "MD5SUMS").read_text().splitlines()
    if not line.startswith("#")
}


@pytest.fixture(scope="session")
def coverage():
    """What the streams of `test_conformance` exercise, and which were decoded."""
    result = Coverage()
    result.streams = set()
    return result


def stream(name):
    return (STREAMS / f"{name}.nnv").read_bytes()


def decode(data, bundles, **options):
    """The shown frames and what was reported."""
    reports = []
    return list(Decoder(data, bundles, reports.append, **options)), reports


def sums(shown):
    result = Sums()
    for frame in shown:
        result.add(frame)
    return result


def units(data):
    return list(UnitReader(data, lambda *_: pytest.fail("the stream is damaged")))


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def unit(kind, payload):
    covered = bytes([kind]) + varint(len(payload))
    check = bytes([crc32c(covered) & 0xFF])
    return START + covered + check + payload + crc32c(covered, payload).to_bytes(4, "big")


def written(items):
    return b"".join(unit(item.type, item.payload) for item in items)


@pytest.mark.parametrize("name", LINES)
def test_conformance(name, bundles, coverage):
    shown, reports = decode(stream(name), bundles, trace=coverage)
    coverage.streams.add(name)
    assert reports == []
    frames, by_frame, by_sample = str(sums(shown)).split()
    assert [frames, by_frame] == LINES[name][:2]
    if LINES[name][2] != "-":
        assert by_sample == LINES[name][2]


def test_the_table_of_what_is_exercised_is_up_to_date(coverage):
    if coverage.streams != set(LINES):
        pytest.skip("needs all of test_conformance before it")
    text = (STREAMS / "README.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ")]
    wanted = [line for line in coverage.table() if line.startswith("| ")]
    assert table[-len(wanted) :] == wanted, "decode.py --coverage says it"


def test_every_stream_is_listed():
    assert set(LINES) == {path.stem for path in STREAMS.glob("*.nnv")}


def test_the_table_is_that_of_the_document():
    text = (ROOT / "docs/bitstream.md").read_text()
    (table,) = re.findall(r"^```\n([\d,\s]+)```$", text, re.M)
    assert LOGISTIC == [int(n) for n in table.replace(",", " ").split()]


def test_units_are_written_as_they_are_read():
    for name in LINES:
        assert written(units(stream(name))) == stream(name)


def test_fillers_and_unknown_units_change_nothing(bundles):
    data = b"".join(
        unit(3, b"filler" + START) + unit(100, b"") + unit(u.type, u.payload)
        if u.type == SEQUENCE
        else unit(9, bytes(5)) + unit(u.type, u.payload)
        for u in units(stream("key-only"))
    )
    shown, reports = decode(data, bundles)
    assert reports == []
    assert str(sums(shown)).split() == LINES["key-only"]


def test_damage_between_units_is_passed_over(bundles):
    first, *others = units(stream("key-only"))
    sequences = [i for i, u in enumerate(others) if u.type == SEQUENCE]
    # Start codes in the rubbish, one of which claims a long unit that hides what follows.
    rubbish = START + START[:2] + START + b"\x02\xff\xff\xff\x3f" + bytes(9)
    data = written([first, *others[: sequences[0]]]) + rubbish + written(others[sequences[0] :])
    shown, reports = decode(data, bundles)
    assert len(reports) == 1
    assert "no unit" in reports[0]
    assert str(sums(shown)).split() == LINES["key-only"]


@pytest.mark.parametrize("where", ["header check", "payload", "checksum"])
def test_a_wrong_byte_costs_its_unit(where, bundles):
    data = bytearray(stream("key-only"))
    frame = [u for u in units(bytes(data)) if u.type == FRAME][1]
    place = {"header check": frame.payload_offset - 1, "payload": frame.payload_offset + 40}
    data[place.get(where, frame.end - 1)] ^= 0x10
    shown, reports = decode(bytes(data), bundles)
    assert len(shown) == 3
    assert any("no unit" in r for r in reports)


def test_a_picture_other_than_its_checksum_says_is_told(bundles):
    items = units(stream("key-only"))
    frame = [u for u in items if u.type == FRAME][0]
    payload = bytearray(frame.payload)
    assert payload[0] & 8
    # Behind four bytes and the time, whose first byte is 0 in the first frame.
    assert payload[4] == 0
    payload[5] ^= 1
    frame.payload = bytes(payload)
    shown, reports = decode(written(items), bundles)
    assert len(shown) == 3
    assert len(reports) == 1
    assert "checksum" in reports[0]


def test_no_changed_part_passes(bundles):
    """Payloads changed under sound units: refused, found out by the frame's checksum, or (the last
    bits of a string decide nothing) the same pictures."""
    draw = random.Random(1)
    told = 0
    for name, frames, count in (("key-check", 2, 12), ("visual", 2, 4), ("ink", 1, 2)):
        original = units(stream(name))[: frames + 1]
        right = [frame.output() for frame in decode(written(original), bundles)[0]]
        for _ in range(count):
            items = units(written(original))
            item = draw.choice(items[1:])
            payload = bytearray(item.payload)
            place = draw.randrange(12, len(payload))
            payload[place] ^= 1 << draw.randrange(8)
            item.payload = bytes(payload)
            shown, reports = decode(written(items), bundles)
            told += bool(reports)
            if not reports:
                for frame, wanted in zip(shown, right, strict=True):
                    for plane, other in zip(frame.output(), wanted):
                        assert (plane == other).all(), (name, place, item.offset)
    assert told >= 15


def test_later_versions_and_other_bundles_are_refused_by_name(bundles):
    items = units(stream("key-only"))
    payload = items[0].payload
    later = unit(SEQUENCE, payload[:4] + b"\x02" + payload[5:]) + written(items[1:])
    with pytest.raises(Unsupported, match="version 2"):
        decode(later, bundles)
    at = 6 + payload[5]
    other = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
    with pytest.raises(Unsupported, match="realtime"):
        decode(unit(SEQUENCE, other) + written(items[1:]), bundles)
    nowhere = payload.replace(b"realtime", b"nowhere.")
    with pytest.raises(Unsupported, match="nowhere"):
        decode(unit(SEQUENCE, nowhere) + written(items[1:]), bundles)


def test_sequence_headers_beyond_their_limits_are_refused(bundles):
    """Each byte of the first header, with values beyond its field's limits."""
    items = units(stream("key-only"))
    payload = items[0].payload
    base = 6 + payload[5] + 8
    changes = {
        0: b"M",
        4: b"\x00",
        6: b".",
        base: b"\x10",  # flags
        base + 1: b"\x00",  # width 0
        base + 3: b"\x01",  # odd crop
        base + 5: b"\x60",  # all of the width
    }
    for place, byte in changes.items():
        header = payload[:place] + byte + payload[place + 1 :]
        shown, reports = decode(unit(SEQUENCE, header) + written(items[1:2]), bundles)
        assert not shown, place
        assert any("sequence: " in r for r in reports), (place, reports)
    shown, reports = decode(unit(SEQUENCE, payload + b"\0") + written(items[1:2]), bundles)
    assert not shown
    assert any("trailing" in r for r in reports)


def test_frames_of_a_lost_key_frame_are_not_shown(bundles):
    """The second key frame is lost; its frames carry the number of the first group."""
    items = units(stream("key-check"))
    second = [i for i, u in enumerate(items) if u.type == SEQUENCE][1]
    items = items[:second] + items[second + 2 :]
    for item in items[second:]:
        payload = bytearray(item.payload)
        payload[2] = items[1].payload[2]
        item.payload = bytes(payload)
    shown, reports = decode(written(items), bundles)
    assert len(shown) == second - 1
    assert len(reports) == len(items) - second
    assert all("lost" in r for r in reports)


def test_a_lost_frame_takes_with_it_what_refers_to_it(bundles):
    items = units(stream("low-delay"))
    del items[3]
    shown, reports = decode(written(items), bundles)
    whole, _ = decode(stream("low-delay"), bundles)
    # The two before, and the second group.
    assert [s.pts for s in shown] == [s.pts for s in whole[:2] + whole[8:]]
    assert len(reports) >= 5


def test_times_of_joined_streams_go_on(bundles):
    shown, reports = decode(stream("key-only") + stream("odd-size"), bundles)
    assert reports == []
    assert [s.pts for s in shown] == [40_000_000 * i for i in range(10)]


@pytest.mark.parametrize("name", ["realtime", "visual"])
def test_known_answers_without_a_runtime_for_networks(name):
    """Operators written out, each value held to float32."""
    Bundle(ROOT / "models" / name, Plain)


def test_pictures_without_a_runtime_for_networks():
    shown, reports = decode(stream("odd-size"), Bundles(ROOT / "models", Plain), most=3)
    assert reports == []
    assert len(shown) == 3


def test_sums_beyond_float32_are_refused():
    options = {"kernel_shape": (1, 1), "pads": (0, 0, 0, 0), "strides": (1, 1)}
    x = np.array([2**24, 1], np.float32).reshape(1, 2, 1, 1)
    weights = np.ones((1, 2, 1, 1), np.float32)
    with pytest.raises(Unsupported, match="order of summation"):
        conv(x, weights, **options)
    assert conv(x - np.float32(1), weights, **options).item() == 2**24 - 1


def test_a_runtime_that_misses_a_known_answer_must_not_decode():
    class Wrong(OnnxRuntime):
        def run(self, feed):
            outputs = super().run(feed)
            outputs["pic"] = outputs.get("pic", 0) + np.int16(1)
            return outputs

    with pytest.raises(Unsupported, match="must not decode"):
        Bundle(ROOT / "models/realtime", Wrong)


def test_frames_and_trace_and_coverage(bundles):
    shown, reports = decode(stream("hierarchical-b"), bundles, most=3)
    assert (shown[0].number, len(shown), reports) == (0, 3, [])
    out = io.StringIO()
    decode(stream("low-delay"), bundles, trace=Printer(out), most=2)
    lines = [line for line in out.getvalue().splitlines() if line[0] != "#"]
    # Elements follow each other within each string of each frame.
    for part in ("z", "y", "side"):
        places = [float(line.split()[0]) for line in lines if line.split()[1] == part]
        assert places == sorted(places)
        assert places
    magic = [line for line in lines if "magic" in line]
    assert magic == ["         48.00  sequence magic = 4e4e5631"]
    coverage = Coverage()
    decode(stream("low-delay"), bundles, trace=coverage, most=2)
    assert coverage.seen["frame", "type"] == {"key", "inter"}
    assert "| 4 | frame | type | key, inter | repeat |" in coverage.table()


def test_the_command(tmp_path):
    path = tmp_path / "samples.yuv"
    command = [sys.executable, HERE / "decode.py", STREAMS / "odd-size.nnv", "-o", path]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].split() == ["odd-size", *LINES["odd-size"]]
    assert path.stat().st_size == 6 * (81 * 47 + 2 * 41 * 24)


def test_unknown_units_are_passed_over_or_refused(bundles):
    data = stream("low-delay")
    begins = [u.offset for u in units(data) if u.type == FRAME]

    def with_unit(kind):
        pieces = [data[a:b] for a, b in zip([0] + begins, begins + [len(data)])]
        return decode(unit(kind, b"x").join(pieces), bundles)

    plain, _ = decode(data, bundles)
    shown, reports = with_unit(127)
    assert str(sums(shown)) == str(sums(plain)) and not reports
    shown, reports = with_unit(128)
    assert not shown and "type 128" in reports[0]
