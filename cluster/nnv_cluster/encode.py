# SPDX-License-Identifier: MPL-2.0
"""From a source to an output: plan, code what is missing, verify, join."""

import os
import sys
import time
from dataclasses import asdict

from .codecs import CODECS, job_key
from .engine import common_versions
from .errors import ClusterError
from .join import join, muxer_of, nnv_program
from .plan import Plan, file_hash, make_plan
from .rate import plan_rate
from .store import Store


def warn(text):
    """Tells of what is no error."""
    print(f"nnv-cluster: {text}", file=sys.stderr)


class Progress:
    """A bar with rate and time left, and the processor time that went into chunks."""

    def __init__(self, frames, quiet):
        from tqdm import tqdm

        self.core_seconds = 0.0
        self.bar = tqdm(
            total=frames, unit="frame", disable=quiet, file=sys.stderr, dynamic_ncols=True
        )

    def done(self, record):
        """A chunk is coded."""
        self.core_seconds += record["core_seconds"]
        self.bar.set_postfix_str(f"{self.core_seconds / 3600:.3f} core-hours", refresh=False)
        self.bar.update(record["frames"])

    def close(self):
        """Ends the bar."""
        self.bar.close()


class Film:
    """One source, its settings and where its chunks are kept."""

    def __init__(self, plan, settings, versions, store):
        self.plan, self.settings, self.versions, self.store = plan, settings, versions, store
        self.ending = CODECS[settings.codec].ending
        self.core_seconds = 0.0
        self.fresh = 0

    def job(self, chunk, quantizer):
        """What a task is told."""
        return {
            "plan": {**asdict(self.plan), "chunks": []},
            "chunk": asdict(chunk),
            "settings": asdict(self.settings),
            "versions": self.versions,
            "quantizer": quantizer,
        }

    def key(self, chunk, quantizer):
        """Name of a chunk's files."""
        return job_key(self.plan, chunk, self.settings, quantizer, self.versions)

    def code(self, engine, wanted, quiet=True):
        """Codes those of `{(index, quantizer)}` that are not in the store; returns all records."""
        records, jobs, frames = {}, [], 0
        for index, quantizer in sorted(wanted):
            chunk = self.plan.chunks[index]
            record = self.store.find(self.key(chunk, quantizer), self.ending)
            if record:
                records[index, quantizer] = record
            else:
                jobs.append((chunk, quantizer))
                frames += chunk.count
        progress = Progress(frames, quiet or not jobs)
        try:
            made = (self.job(chunk, quantizer) for chunk, quantizer in jobs)
            for job, record, data in engine.results(made):
                chunk = self.plan.chunks[job["chunk"]["index"]]
                key = self.key(chunk, job["quantizer"])
                self.store.put(key, self.ending, record, data)
                records[chunk.index, job["quantizer"]] = record
                self.core_seconds += record["core_seconds"]
                self.fresh += 1
                progress.done(record)
        finally:
            progress.close()
        return records

    def files(self, quantizers):
        """Files of all chunks in order, each looked at once more.

        Raises ClusterError that names the chunks which are not there.
        """
        found, lost = [], []
        for chunk in self.plan.chunks:
            key = self.key(chunk, quantizers[chunk.index])
            record = self.store.find(key, self.ending)
            if record is None or record["frames"] != chunk.count:
                lost.append(str(chunk.index))
            found.append(self.store.path(key, self.ending))
        if lost:
            some = ", ".join(lost[:8]) + (" …" if len(lost) > 8 else "")
            raise ClusterError(f"chunks {some} are not coded or damaged; run again with --resume")
        return found


def plan_of(source, store, options):
    """The plan of a source: the kept one where the source is unchanged, else a new one."""
    kept = store.path("plan-" + limits_name(options), "json")
    if options.resume and os.path.isfile(kept):
        plan = Plan.read(kept)
        if plan.source == os.path.abspath(source) and plan.hash == file_hash(source):
            return plan
    from tqdm import tqdm

    with tqdm(unit="frame", desc="reading", disable=options.quiet, file=sys.stderr) as bar:
        plan = make_plan(
            source,
            options.shortest,
            options.longest,
            options.damaged,
            options.long_sound,
            told=lambda _: bar.update(),
        )
    plan.write(kept)
    return plan


def limits_name(options):
    """What of the options decides the plan."""
    flags = ("d" if options.damaged else "") + ("s" if options.long_sound else "")
    return f"{options.shortest:g}-{options.longest:g}{flags}"


def encode(source, output, engine, settings, options):
    """Codes a source into a file; returns facts about it."""
    begin = time.monotonic()
    muxer_of(output, settings.codec)
    if settings.codec == "nnv":
        nnv_program()
    if os.path.exists(output) and os.path.samefile(source, output):
        raise ClusterError(f"{output}: the output is the source")
    # Before the source is read: the one takes a second, the other long.
    versions = common_versions(engine.versions(settings), warn)
    work = options.work or output + ".chunks"
    if os.path.isdir(work) and os.listdir(work) and not options.resume:
        raise ClusterError(f"{work} holds chunks of an earlier run; give --resume, or remove it")
    store = Store(work)
    plan = plan_of(source, store, options)
    film = Film(plan, settings, versions, store)
    quiet = options.quiet
    if options.bitrate:
        def code(wanted):
            found = film.code(engine, wanted, quiet)
            return {pair: record["bytes"] for pair, record in found.items()}

        worst = CODECS[settings.codec].worst
        quantizers, reached = plan_rate(plan, options.bitrate, worst, code)
        if abs(reached / options.bitrate - 1) > 0.05:
            warn(f"{reached:.0f} kbit/s is the nearest to {options.bitrate} that was found")
    else:
        quantizers = {chunk.index: options.quantizer for chunk in plan.chunks}
        film.code(engine, set(quantizers.items()), quiet)
    files = film.files(quantizers)
    join(plan, files, settings.codec, output)
    size = sum(os.path.getsize(path) for path in files)
    if not options.keep:
        store.clear()
    return {
        "output": output,
        "frames": plan.frames,
        "chunks": len(plan.chunks),
        "coded": film.fresh,
        "kbits": round(size * 8 / plan.seconds / 1000, 1),
        "quantizers": sorted(set(quantizers.values())),
        "seconds": round(time.monotonic() - begin, 2),
        "core_hours": round(film.core_seconds / 3600, 5),
    }
