"""Clips that went through another codec: ``python -m nnvtrain precode``.

Users transcode what others coded. A share of the store's clips is coded with x264, x265, MPEG-4
or VP9 at CRF 18 to 34, decoded, and kept beside the originals in a store of its own. Which clips,
with which codec and CRF, follows from their names and a seed. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np

from .data import Store, default_folders, load_store, open_store, write_index

VERSION = 1
SHARE = 1 / 3
CRF = (18, 34)
# Encoder, decoder and options for a CRF: presets that are fast, since they only have to be typical.
CODECS = {
    "x264": ("libx264", "h264", lambda crf: {"preset": "veryfast", "crf": str(crf)}),
    "x265": ("libx265", "hevc", lambda crf: {
        "preset": "superfast", "crf": str(crf),
        "x265-params": "log-level=none:pools=none:frame-threads=1"}),
    "mpeg4": ("mpeg4", "mpeg4", lambda crf: {"qmin": mpeg4_scale(crf), "qmax": mpeg4_scale(crf)}),
    "vp9": ("libvpx-vp9", "vp9", lambda crf: {
        "deadline": "realtime", "cpu-used": "7", "b": "0", "crf": str(crf)}),
}


def mpeg4_scale(crf: int) -> str:
    """The quantiser scale (2 to 13) that looks like a CRF: both double the step in six."""
    return str(round(2 * 2 ** ((crf - CRF[0]) / 6)))


def choose(name: str, seed: int = 0, share: float = SHARE):
    """(codec, CRF) that a clip of this name goes through, or None."""
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    rng = np.random.default_rng(list(digest))
    if rng.random() >= share:
        return None
    return str(rng.choice(list(CODECS))), int(rng.integers(CRF[0], CRF[1] + 1))


def recode(planes, codec: str, crf: int):
    """(y, u, v) of a clip [n,h,w] as a decoder gives them back."""
    try:
        import av
    except ImportError as error:
        raise RuntimeError("coding clips needs PyAV (pip install av); or --coded 0") from error
    from fractions import Fraction

    n, h, w = planes[0].shape
    encoder_name, decoder_name, options = CODECS[codec]
    encoder = av.CodecContext.create(encoder_name, "w")
    encoder.width, encoder.height, encoder.pix_fmt = w, h, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.options, encoder.thread_count = options(crf), 1
    decoder = av.CodecContext.create(decoder_name, "r")
    decoder.thread_count = 1
    out = [np.empty_like(p) for p in planes]
    done = 0

    def show(packets):
        nonlocal done
        for packet in packets:
            for frame in decoder.decode(packet):
                for to, plane in zip(out, frame.planes):
                    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                    to[done] = rows[: to.shape[1], : to.shape[2]]
                done += 1

    for t in range(n):
        frame = av.VideoFrame(w, h, "yuv420p")
        for plane, given in zip(frame.planes, planes):
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            rows[:, : plane.width] = given[t]
            plane.update(rows)
        frame.pts, frame.time_base = t, encoder.time_base
        show(encoder.encode(frame))
    show(encoder.encode(None))
    show([None])
    if done != n:
        raise ValueError(f"{codec} gave back {done} of {n} frames")
    return out


def open_coded(store: Store, seed: int = 0, share: float = SHARE, log=print) -> Store:
    """The coded clips of a store, made on first use. A clip's `of` is its original's place."""
    name = f"{store.path.name}-coded{VERSION}-{seed}-{round(share * 1000)}"
    path = store.path.with_name(name)
    if not path.with_suffix(".json").exists():
        make(store, path, seed, share, log)
    return load_store(path)


def make(store: Store, path: Path, seed: int, share: float, log):
    """Writes the coded clips. What is done stands in a journal, one line a clip."""
    chosen = [(i, choose(clip["name"], seed, share)) for i, clip in enumerate(store.clips)]
    chosen = [(i, *how) for i, how in chosen if how]
    part, journal = path.with_suffix(".part"), path.with_suffix(".journal")
    lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
    done = [json.loads(line) for line in lines if line.endswith("\n")]
    clips = [clip for clip in done if clip]
    offset = clips[-1]["offset"] + size_of(clips[-1]) if clips else 0
    log(f"coding {len(chosen)} of {len(store)} clips into {path}.bin, {len(done)} done before")
    start = said = time.time()
    with open(part, "r+b" if done else "wb") as data, open(journal, "w") as notes:
        data.truncate(offset)
        data.seek(offset)
        notes.writelines(json.dumps(clip) + "\n" for clip in done)
        for i, codec, crf in chosen[len(done) :]:
            clip = store.clips[i] | dict(codec=codec, crf=crf, of=i, offset=offset)
            try:
                planes = recode(store.planes(store.clips[i]), codec, crf)
            except (OSError, ValueError) as error:  # PyAV's errors are among these
                log(f"skipped: {clip['name']}: {error}")
                clip = None
            else:
                for frame in zip(*planes):
                    for plane in frame:
                        data.write(plane.tobytes())
                data.flush()
                clips.append(clip)
                offset += size_of(clip)
            done.append(clip)
            print(json.dumps(clip), file=notes, flush=True)
            if time.time() - said > 20:
                said = time.time()
                log(f"{len(done)} of {len(chosen)} clips, {said - start:.0f} s")
    part.replace(path.with_suffix(".bin"))
    write_index(path, clips)
    journal.unlink()


def size_of(clip: dict) -> int:
    return clip["frames"] * clip["h"] * clip["w"] * 3 // 2


def arguments(p: argparse.ArgumentParser):
    default_folders(p)
    p.add_argument("--seed", type=int, default=0, help="another seed: other clips, codecs and CRFs")


def run(args):
    coded = open_coded(open_store(args.data, args.cache), args.seed)
    for codec in CODECS:
        mine = [c for c in coded.clips if c["codec"] == codec]
        print(f"{codec}: {len(mine)} clips, {sum(c['frames'] for c in mine)} frames")
