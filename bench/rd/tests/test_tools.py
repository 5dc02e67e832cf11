"""What is read from the tools, and what they are told; none of them runs here."""

import sys
from fractions import Fraction
from pathlib import Path

import pytest

from nnvrd import codecs, ffmpeg, vmaf
from nnvrd.clips import RawClip, y4m_facts
from nnvrd.codecs import CODECS, WHOLE_CLIP

CLIP = RawClip("clip", 64, 48, Fraction(30000, 1001), 33, Path("c.yuv"), Path("c.y4m"))


@pytest.mark.parametrize(
    ("library", "text", "version"),
    [
        ("libx264", "\x00\x06x264 - core 165 - H.264/MPEG-4 AVC codec", "165"),
        ("libx265", "x265 [info]: HEVC encoder version 4.3+49-020d7054", "4.3+49-020d7054"),
        ("libsvtav1", "SVT [version]:\tSVT-AV1 Encoder Lib v4.2.0-151-g5\n", "4.2.0-151-g5"),
        ("libvvenc", "[libvvenc @ 0x1] libvvenc version: 1.15.0-dev", "1.15.0-dev"),
    ],
)
def test_encoders_say_their_versions(library, text, version):
    assert ffmpeg.banner_version(library, text) == version
    with pytest.raises(RuntimeError, match=library):
        ffmpeg.banner_version(library, "nothing of the kind")


def test_a_program_that_is_there_is_not_fetched(tmp_path):
    (tmp_path / "ffmpeg").touch()
    assert ffmpeg.fetch(tmp_path) == tmp_path / "ffmpeg"


def test_xpsnr_is_read_from_the_summary():
    text = "[Parsed_xpsnr_3 @ 0x7f] XPSNR  y: 30.0  u: 40.0  v: inf  (minimum: 30.0)"
    assert vmaf.xpsnr_in(text) == pytest.approx((6 * 30 + 40 + 100) / 8)
    with pytest.raises(RuntimeError):
        vmaf.xpsnr_in("VMAF score: 88")


def test_facts_come_from_the_y4m_header():
    facts = y4m_facts(b"YUV4MPEG2 W176 H144 F30000:1001 Ip A128:117 Cmono\nFRAME\n123")
    assert facts == (176, 144, Fraction(30000, 1001))
    with pytest.raises(RuntimeError):
        y4m_facts(b"")


def commands(monkeypatch, key):
    monkeypatch.setenv("NNV_FFMPEG", "ffmpeg")
    ffmpeg.program.cache_clear()
    anchors = [c for c in CODECS.values() if c.kind == "ffmpeg"]
    yield from ((c, " ".join(codecs.encode_command(c, CLIP, 29, key, 1))) for c in anchors)
    ffmpeg.program.cache_clear()


def test_anchors_get_the_same_frames_interval_and_one_thread(monkeypatch):
    for codec, text in commands(monkeypatch, 64):
        assert "-s 64x48 -r 30000/1001 -i c.yuv" in text
        assert "-threads 1" in text
        assert ("intraperiod=64" if codec.suffix == "vvc" else "-g 64") in text
        assert ("-qp 29" if codec.suffix == "vvc" else "-crf 29") in text
        assert "pools=none" in text or codec.suffix != "hevc"
        assert "tune=1:lp=1" in text or codec.suffix != "obu"


def test_a_whole_clip_is_a_multiple_of_the_longest_mini_gop():
    assert WHOLE_CLIP % 32 == 0
    assert codecs.interval_of(64, 33) == WHOLE_CLIP
    assert codecs.interval_of(32, 33) == 32


def test_time_is_work_and_not_waiting():
    working = codecs.run_timed([sys.executable, "-c", "sum(range(10**7))"], 60)
    waiting = codecs.run_timed([sys.executable, "-c", "import time; time.sleep(0.5)"], 60)
    assert 0.05 < working
    assert waiting < 0.4


def test_failing_and_endless_commands_are_errors():
    with pytest.raises(RuntimeError, match="(?s)status 3.*broken"):
        codecs.run_timed([sys.executable, "-c", "print('broken'); raise SystemExit(3)"], 60)
    with pytest.raises(RuntimeError, match="no end after 0 s"):
        codecs.run_timed([sys.executable, "-c", "import time; time.sleep(30)"], 0.2)
