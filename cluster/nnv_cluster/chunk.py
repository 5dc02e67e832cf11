# SPDX-License-Identifier: MPL-2.0
"""A task: one chunk, coded, decoded again and recorded. `python -m nnv_cluster.chunk JOB OUT`.

It runs in a process of its own: what crashes or is killed there takes nothing else along.
"""

import ctypes
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time

from .codecs import CODECS, Settings, job_key, versions
from .errors import ClusterError, Interrupted
from .media import SECOND, Coder, Pictures, grid, picture_hash
from .plan import Chunk, Plan

# A key frame may not decode by itself (open groups): then reading begins so much earlier, in s.
EARLIER = (0, 12, None)


def read_range(plan, chunk):
    """Yields the frames of a chunk, reading from a key frame before it.

    Frames are found by their time; the plan's hash of the pictures is for the caller to compare.
    """
    for earlier in EARLIER:
        frames = range_from(plan, chunk, earlier)
        yield frames
        # The caller asks again where the pictures differ.


def range_from(plan, chunk, earlier):
    """The frames of a chunk, read from the key frame before it or `earlier` seconds more."""
    # Half a frame: containers round times.
    slack = int(SECOND / plan.fps / 2)
    found = 0
    with Pictures(plan.source) as pictures:
        if chunk.first > 0 and earlier is not None:
            pictures.seek(chunk.time - int(earlier * SECOND))
        for frame in pictures:
            wanted = grid(chunk.time, found, plan.fps)
            if frame.time < wanted - slack and not found:
                continue
            yield frame
            found += 1
            if found == chunk.count:
                return


def code(plan, chunk, settings, quantizer, out):
    """Codes a chunk into the file `out`.

    Raises ClusterError where the pictures are not the plan's.
    """
    duration = int(SECOND / plan.fps)
    last = ""
    for frames in read_range(plan, chunk):
        coder, digest, seen = None, hashlib.blake2b(digest_size=16), 0
        from .media import gst

        caps = gst()[0].Caps.from_string(plan.caps)
        coder = Coder(f'{settings.encoder(quantizer)} ! filesink location="{out}"', caps)
        try:
            for frame in frames:
                digest.update(picture_hash(frame))
                coder.send(frame.buffer, grid(0, seen, plan.fps), duration)
                seen += 1
            if seen == chunk.count and digest.hexdigest() == chunk.pictures:
                coder.finish()
                return
            last = f"{seen} of {chunk.count} frames" if seen != chunk.count else "other pictures"
        finally:
            coder.close()
    end = chunk.first + chunk.count - 1
    raise ClusterError(
        f"{plan.source}: chunk {chunk.index} (frames {chunk.first} to {end}, from "
        f"{chunk.time / SECOND:.2f} s) reads as {last} here: the source is damaged, was changed "
        "since it was planned, or is decoded otherwise on this node"
    )


def verify(path, count, index):
    """Decodes a coded chunk; returns the hash of its pictures.

    Raises ClusterError where frames are missing or the decoder warns.
    """
    digest, seen = hashlib.blake2b(digest_size=16), 0
    with Pictures(path) as pictures:
        for frame in pictures:
            if frame.corrupted:
                raise ClusterError(f"chunk {index}: frame {seen} of what was coded is damaged")
            digest.update(picture_hash(frame))
            seen += 1
        warnings = pictures.warnings
    if warnings:
        raise ClusterError(f"chunk {index}: what was coded does not decode: {warnings[0]}")
    if seen != count:
        raise ClusterError(f"chunk {index}: {seen} of {count} coded frames decode")
    return digest.hexdigest()


def work(job, out):
    """Does a job; returns its record."""
    begin = time.monotonic()
    plan = job["plan"]
    chunk = Chunk(**job["chunk"])
    settings = Settings(**job["settings"])
    plan = Plan(**{**plan, "chunks": [], "rate": tuple(plan["rate"])})
    here = versions(settings)
    if here["software"] != job["versions"]["software"]:
        raise ClusterError("this node has other versions than the plan; all must have the same")
    if not os.path.isfile(plan.source):
        raise ClusterError(f"{plan.source}: no such file on this node; share or copy it there")
    if os.path.getsize(plan.source) != plan.size:
        raise ClusterError(f"{plan.source}: another file than the one that was planned")
    code(plan, chunk, settings, job["quantizer"], out)
    shown = verify(out, chunk.count, chunk.index)
    with open(out, "rb") as file:
        data = file.read()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "key": job_key(plan, chunk, settings, job["quantizer"], job["versions"]),
        "index": chunk.index,
        "frames": chunk.count,
        "quantizer": job["quantizer"],
        "bytes": len(data),
        "hash": hashlib.blake2b(data, digest_size=16).hexdigest(),
        "shown": shown,
        "seconds": round(time.monotonic() - begin, 3),
        "core_seconds": round(usage.ru_utime + usage.ru_stime, 3),
    }


def die_with_parent():
    """A task's process ends when the one that started it is killed."""
    # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run(job):
    """Does a job in a process of its own; returns `(record, bytes)`.

    Raises ClusterError with the process's own line, Interrupted where it was killed.
    """
    ending = CODECS[job["settings"]["codec"]].ending
    with tempfile.TemporaryDirectory(prefix="nnv-cluster-") as folder:
        out = os.path.join(folder, f"chunk.{ending}")
        with open(os.path.join(folder, "job.json"), "w", encoding="utf-8") as file:
            json.dump(job, file)
        # A registry of its own each would be made anew; the shared one is read only.
        done = subprocess.run(
            [sys.executable, "-m", "nnv_cluster.chunk", file.name, out],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=die_with_parent,
            check=False,
        )
        index = job["chunk"]["index"]
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise Interrupted(f"chunk {index}: its process ended by {name}")
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise ClusterError(lines[-1])
        record = json.loads(done.stdout.strip().splitlines()[-1])
        with open(out, "rb") as file:
            return record, file.read()


def main():
    """The process of a task."""
    job, out = sys.argv[1:]
    try:
        with open(job, encoding="utf-8") as file:
            record = work(json.load(file), out)
    except ClusterError as e:
        print(e, file=sys.stderr)
        return 1
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
