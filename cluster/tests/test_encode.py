# SPDX-License-Identifier: MPL-2.0
"""Whole runs on this machine, with the plugin: one result, resumed runs, errors."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import RATE, film

FAST = ["--set", "speed-preset=fast", "--quantizer", "36"]


def cluster(*arguments, good=True, env=None):
    """Runs nnv-cluster: what it prints, or its error."""
    done = subprocess.run(
        [sys.executable, "-m", "nnv_cluster", *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, **(env or {})},
    )
    if good:
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("nnv-cluster: "), done.stderr
    return lines[0]


def local(source, out, *arguments, **more):
    return cluster("encode", source, "-o", out, "--address", "local", "--quiet", *arguments, **more)


def shown(path):
    """Hashes and times of a file's pictures."""
    from nnv_cluster.media import Pictures, picture_hash

    with Pictures(str(path)) as pictures:
        return [(picture_hash(frame), frame.time) for frame in pictures]


def one_process(source, out, settings, quantizer):
    """What the encoder gives in one process with key frames where chunks begin."""
    from nnv_cluster.media import SECOND, Coder, Pictures, grid, gst
    from nnv_cluster.plan import make_plan

    plan = make_plan(source)
    caps = gst()[0].Caps.from_string(plan.caps)
    coder = Coder(f'{settings.encoder(quantizer)} ! filesink location="{out}"', caps)
    coder.pipeline.get_state(5 * SECOND)
    for chunk in plan.chunks[1:]:
        coder.force_key_at(grid(0, chunk.first, plan.fps))
    with Pictures(source) as pictures:
        for n, frame in enumerate(pictures):
            coder.send(frame.buffer, grid(0, n, plan.fps), SECOND // RATE)
    coder.finish()
    return plan


def test_any_number_of_workers_gives_one_result(source, tmp_path):
    from nnv_cluster.codecs import Settings

    for workers in (1, 2, 4):
        facts = local(source, tmp_path / f"{workers}.mp4", "--workers", workers, *FAST)
        assert (facts["frames"], facts["chunks"], facts["coded"]) == (190, 2, 2)
    whole = (tmp_path / "1.mp4").read_bytes()
    assert (tmp_path / "2.mp4").read_bytes() == whole
    assert (tmp_path / "4.mp4").read_bytes() == whole
    alone = tmp_path / "alone.nnv"
    plan = one_process(source, alone, Settings(properties=(("speed-preset", "fast"),)), 36)
    assert [(c.first, c.count) for c in plan.chunks] == [(0, 70), (70, 120)]
    pictures = shown(tmp_path / "1.mp4")
    assert [h for h, _ in pictures] == [h for h, _ in shown(alone)]
    assert [t // 1000 for _, t in pictures] == [i * 1_000_000 // RATE for i in range(190)]
    # The sound of the source is there, whole.
    from nnv_cluster.media import Pictures

    ends = []
    for path in (source, tmp_path / "1.mp4"):
        with Pictures(str(path), follow_others=True) as reader:
            assert sum(1 for _ in reader) == 190
        assert [name for name, _ in reader.others] == ["audio/mpeg"]
        ends.append(reader.ends[0])
    assert abs(ends[0] - ends[1]) < 30_000_000
    assert not (tmp_path / "1.mp4.chunks").exists()


@pytest.mark.parametrize("bframes", [1, 2, 3, 5, 7])
def test_chunks_show_what_one_process_shows_with_b_frames(source, tmp_path, bframes):
    from nnv_cluster.codecs import Settings

    properties = (("bframes", str(bframes)), ("speed-preset", "fast"))
    out, alone = tmp_path / "chunks.nnv", tmp_path / "alone.nnv"
    local(source, out, *FAST, "--set", f"bframes={bframes}", "--workers", 2)
    one_process(source, alone, Settings(properties=properties), 36)
    pictures = [h for h, _ in shown(alone)]
    assert len(pictures) == 190
    assert [h for h, _ in shown(out)] == pictures


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_x264_is_joined_frame_by_frame(source, tmp_path, ending):
    more = ["--codec", "x264", "--set", "speed-preset=veryfast", "--set", "bframes=2"]
    out = [tmp_path / f"{n}.{ending}" for n in (1, 2)]
    for n in (1, 2):
        local(source, out[n - 1], "--workers", n, "--quantizer", 20, *more)
    if ending == "mp4":
        assert out[0].read_bytes() == out[1].read_bytes()
    pictures = shown(out[0])
    assert pictures == shown(out[1])
    slack = 1_000_000
    assert len(pictures) == 190
    for i, (_, time) in enumerate(pictures):
        assert abs(time - pictures[0][1] - i * 40_000_000) <= slack


def test_each_chunk_is_read_exactly_wherever_key_frames_are(tmp_path):
    from nnv_cluster.chunk import range_from
    from nnv_cluster.media import picture_hash
    from nnv_cluster.plan import make_plan

    for ending in ("mp4", "mkv"):
        path = film(tmp_path / f"film.{ending}", shots=(53, 61, 77, 59))
        plan = make_plan(path)
        assert [c.first for c in plan.chunks] == [0, 53, 114, 191]
        whole = [h for h, _ in shown(path)]
        for chunk in plan.chunks:
            part = [picture_hash(f) for f in range_from(plan, chunk, 0)]
            assert part == whole[chunk.first : chunk.first + chunk.count]


def test_a_run_goes_on_with_what_is_there(source, tmp_path):
    out, more = tmp_path / "a.nnv", [*FAST, "--keep"]
    assert local(source, out, *more)["coded"] == 2
    first = out.read_bytes()
    message = local(source, out, *more, good=False)
    assert "holds chunks of an earlier run; give --resume" in message
    assert local(source, out, *more, "--resume")["coded"] == 0
    # One chunk is damaged, and coded anew; other settings find nothing.
    chunk = sorted((tmp_path / "a.nnv.chunks").glob("*.nnv"))[0]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    assert local(source, out, *more, "--resume")["coded"] == 1
    assert out.read_bytes() == first
    assert local(source, out, "--quantizer", 50, *FAST[:2], "--resume")["coded"] == 2


def test_a_rate_is_met_by_quantizers_of_chunks(tmp_path):
    path = film(tmp_path / "film.mp4", shots=(60, 55, 70, 50), sound=False)
    more = ["--codec", "x264", "--set", "speed-preset=veryfast", "--bitrate", 40]
    facts = local(path, tmp_path / "1.mp4", "--workers", 1, *more)
    assert facts["quantizers"][-1] - facts["quantizers"][0] <= 1
    assert local(path, tmp_path / "2.mp4", "--workers", 2, *more)["kbits"] == facts["kbits"]
    assert (tmp_path / "1.mp4").read_bytes() == (tmp_path / "2.mp4").read_bytes()
    # `kbits` counts files of chunks, with their boxes; of four chunks one step is 3 %.
    assert facts["kbits"] == pytest.approx(40, rel=0.08)


def test_chunks_by_index_as_a_job_of_kubernetes(source, tmp_path):
    plan, work, out = tmp_path / "plan.json", tmp_path / "work", tmp_path / "k8s.nnv"
    assert cluster("chunks", source, "-o", plan) == 2
    message = cluster("join", plan, "--work", work, "-o", out, *FAST, good=False)
    assert "chunks 0, 1 are not coded" in message
    for index in ("1", "0"):
        record = cluster(
            "work", plan, "--work", work, *FAST, env={"JOB_COMPLETION_INDEX": index}
        )
        assert record["index"] == int(index)
    assert "--index must be 0 to 1" in cluster(
        "work", plan, "--work", work, "--index", 2, *FAST, good=False)
    done = subprocess.run(
        [sys.executable, "-m", "nnv_cluster", "join", plan, "--work", work, "-o", out, *FAST])
    assert done.returncode == 0
    local(source, tmp_path / "local.nnv", *FAST)
    assert out.read_bytes() == (tmp_path / "local.nnv").read_bytes()


def test_errors_of_sources_are_one_line(source, tmp_path):
    out = tmp_path / "out.mp4"

    def refused(path, *more):
        return local(path, out, *FAST, *more, good=False)

    assert "not there or not readable" in refused(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "the source is empty" in refused(tmp_path / "empty.mp4")
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    assert "cannot be decoded" in refused(tmp_path / "noise.mp4")
    wild = film(
        tmp_path / "wild.mkv", shots=(60,), sound=False,
        times=lambda i: (i + i // 20) * 40_000_000,
    )
    message = refused(wild)
    assert "variable frame rate, or damage: 1 frames are missing before frame 20 (0.84" in message
    long = film(tmp_path / "long.mp4", shots=(60,), seconds=6)
    assert "sound is longer than pictures (5.99 s, 2.40 s)" in refused(long)
    assert local(long, out, *FAST, "--long-sound")["frames"] == 60
    assert "the output is the source" in local(source, source, *FAST, good=False)
    assert "goes into .mp4, .m4v or .nnv" in local(source, tmp_path / "a.avi", *FAST, good=False)
    assert "has no such property" in refused(source, "--set", "nonsense=1")
    assert "goes from 0 to 63" in refused(source, "--quantizer", "64")


def test_a_source_that_changed_is_named_with_its_chunk(source, tmp_path):
    from nnv_cluster.chunk import code
    from nnv_cluster.codecs import Settings
    from nnv_cluster.errors import ClusterError
    from nnv_cluster.plan import make_plan

    plan = make_plan(source)
    plan.chunks[1].pictures = "0" * 32
    with pytest.raises(ClusterError, match=r"chunk 1 \(frames 70 to 189, from 2.80 s\) reads as"):
        code(plan, plan.chunks[1], Settings("x264"), 30, str(tmp_path / "x.mp4"))


def test_a_damaged_source_is_named_with_its_chunk(tmp_path):
    path = film(tmp_path / "film.mp4", shots=(60, 60, 60), sound=False)
    data = bytearray(open(path, "rb").read())
    begin = data.find(b"mdat")
    middle = begin + (data.find(b"moov") - begin) // 2
    for i in range(middle, middle + 600):
        data[i] = (data[i] * 7 + i) & 255
    (tmp_path / "bad.mp4").write_bytes(data)
    message = local(tmp_path / "bad.mp4", tmp_path / "o.mp4", *FAST, good=False)
    # Either the decoder flags a picture or it leaves some out.
    assert "damage" in message
    frame, chunk = re.search(r"frame (\d+) \(.* s, chunk (\d+): ", message).groups()
    assert 60 <= int(frame) < 120 and chunk == "1"


def test_no_ray_is_one_line(source, tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no')")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"}
    message = cluster("encode", source, "-o", tmp_path / "o.mp4", good=False, env=env)
    assert "Ray is not installed: pip install" in message


