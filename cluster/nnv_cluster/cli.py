# SPDX-License-Identifier: MPL-2.0
"""The program nnv-cluster."""

import argparse
import json
import os
import sys

from .codecs import CODECS, Settings, versions
from .engine import engine_of
from .errors import ClusterError
from .plan import Plan, make_plan


def coding(parser):
    """Options of what codes a chunk."""
    parser.add_argument("--codec", choices=sorted(CODECS), default="nnv")
    parser.add_argument("--quantizer", type=int, help="of every chunk [default: 28]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="property of the encoder"
    )
    parser.add_argument("--threads", type=int, default=1, help="of each task's encoder")


def cutting(parser):
    """Options of the plan."""
    parser.add_argument("--shortest", type=float, default=2.0, help="least length of a chunk in s")
    parser.add_argument("--longest", type=float, default=10.0, help="greatest length in s")
    parser.add_argument(
        "--damaged", action="store_true", help="code damaged pictures as the decoder shows them"
    )
    parser.add_argument(
        "--long-sound", action="store_true", help="sound may go on behind the pictures"
    )


def options():
    """All options."""
    parser = argparse.ArgumentParser(
        prog="nnv-cluster", description=sys.modules["nnv_cluster"].__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    encode = commands.add_parser("encode", help="codes films on the nodes of a cluster")
    encode.add_argument("inputs", nargs="+", metavar="IN")
    encode.add_argument(
        "-o", "--output", required=True, help="file; a folder where there are several inputs"
    )
    encode.add_argument(
        "--address", default="auto", help="auto, HOST:PORT (Ray), or local: processes here"
    )
    coding(encode)
    encode.add_argument("--bitrate", type=float, help="mean of the film in kbit/s")
    cutting(encode)
    encode.add_argument("--workers", type=int, help="with --address local [default: cores]")
    encode.add_argument("--cpus", type=int, default=1, help="of a node that a Ray task takes")
    encode.add_argument(
        "--in-flight", type=int, help="most tasks handed to Ray at once [default: twice the slots]"
    )
    encode.add_argument("--work", metavar="DIR", help="where chunks are kept [default: OUT.chunks]")
    encode.add_argument("--resume", action="store_true", help="take chunks that are there")
    encode.add_argument("--keep", action="store_true", help="leave the chunks when all is done")
    encode.add_argument("--quiet", action="store_true", help="no progress bar")

    chunks = commands.add_parser("chunks", help="writes the list of chunks of a source")
    chunks.add_argument("input", metavar="IN")
    chunks.add_argument("-o", "--output", required=True, metavar="PLAN")
    cutting(chunks)
    work = commands.add_parser("work", help="codes one chunk of a plan, without Ray")
    work.add_argument("plan", metavar="PLAN")
    work.add_argument(
        "--index", type=int, default=os.environ.get("JOB_COMPLETION_INDEX"),
        help="number of the chunk [default: JOB_COMPLETION_INDEX]",
    )
    finish = commands.add_parser("join", help="joins the chunks of a plan, without Ray")
    finish.add_argument("plan", metavar="PLAN")
    finish.add_argument("-o", "--output", required=True)
    for command in (work, finish):
        coding(command)
        command.add_argument("--work", metavar="DIR", required=True, help="where chunks are kept")

    plan = commands.add_parser("plan", help="simulates a run: hours for nodes, nodes for hours")
    plan.add_argument("--hours", type=float, required=True, help="length of the film")
    group = plan.add_mutually_exclusive_group(required=True)
    group.add_argument("--nodes", type=int)
    group.add_argument("--deadline", type=float, help="hours in which it shall be done")
    plan.add_argument("--slots", type=int, default=1, help="tasks on a node at once")
    plan.add_argument("--fps", type=float, default=24.0, help="of the film")
    plan.add_argument(
        "--rate", type=float, required=True,
        help="frames a second that one task codes: frames / seconds of its record",
    )
    plan.add_argument("--read", type=float, default=200.0, help="frames a second of the probe")
    plan.add_argument("--passes", type=int, default=1, help="times each chunk is coded")
    plan.add_argument("--shortest", type=float, default=2.0)
    plan.add_argument("--longest", type=float, default=10.0)
    return parser


def settings_of(given):
    """Settings from options.

    Raises ClusterError for values that cannot be.
    """
    pairs = []
    for text in given.set:
        name, equals, value = text.partition("=")
        if not equals or not name.replace("-", "").isalnum():
            raise ClusterError(f"--set {text}: must be NAME=VALUE")
        pairs.append((name, value))
    if given.threads < 1:
        raise ClusterError("--threads must be 1 or more: its number may change the bytes")
    worst = CODECS[given.codec].worst
    if given.quantizer is None:
        given.quantizer = 28
    if not 0 <= given.quantizer <= worst:
        raise ClusterError(f"--quantizer of {given.codec} goes from 0 to {worst}")
    return Settings(given.codec, given.threads, tuple(sorted(pairs)))


def run_encode(given):
    """`nnv-cluster encode`."""
    from .encode import encode

    if given.bitrate is not None and given.quantizer is not None:
        raise ClusterError("--bitrate and --quantizer exclude each other")
    if given.bitrate is not None and given.bitrate <= 0:
        raise ClusterError("--bitrate must be above zero")
    for name in ("workers", "cpus", "in_flight"):
        if (getattr(given, name) or 1) < 1:
            raise ClusterError(f"--{name.replace('_', '-')} must be 1 or more")
    settings = settings_of(given)
    outputs = [given.output]
    if len(given.inputs) > 1:
        if given.work:
            raise ClusterError("--work is for one input")
        os.makedirs(given.output, exist_ok=True)
        stems = [os.path.splitext(os.path.basename(path))[0] for path in given.inputs]
        twice = next((stem for stem in stems if stems.count(stem) > 1), None)
        if twice:
            raise ClusterError(f"two inputs are named {twice}; code them one by one")
        outputs = [os.path.join(given.output, f"{stem}.mp4") for stem in stems]
    for path in given.inputs:
        if not os.access(path, os.R_OK):
            raise ClusterError(f"{path}: the source is not there or not readable")
    engine = engine_of(given.address, given.workers, given.cpus, given.in_flight)
    try:
        for source, output in zip(given.inputs, outputs):
            facts = encode(source, output, engine, settings, given)
            print(json.dumps(facts))
    finally:
        engine.close()


def film_of(given):
    """The film of a plan, with this machine's versions."""
    from .encode import Film
    from .store import Store

    settings = settings_of(given)
    return Film(Plan.read(given.plan), settings, versions(settings), Store(given.work))


def run(given):
    """Does what was asked for."""
    from . import simulate

    if given.command == "encode":
        run_encode(given)
    elif given.command == "chunks":
        plan = make_plan(
            given.input, given.shortest, given.longest, given.damaged, given.long_sound
        )
        plan.write(given.output)
        print(len(plan.chunks))
    elif given.command == "work":
        from .engine import LocalEngine

        film = film_of(given)
        count = len(film.plan.chunks)
        if given.index is None or not 0 <= int(given.index) < count:
            raise ClusterError(f"--index must be 0 to {count - 1}, or JOB_COMPLETION_INDEX be set")
        pair = (int(given.index), given.quantizer)
        print(json.dumps(film.code(LocalEngine(1), {pair})[pair]))
    elif given.command == "join":
        from .join import join

        film = film_of(given)
        chosen = {chunk.index: given.quantizer for chunk in film.plan.chunks}
        join(film.plan, film.files(chosen), given.codec, given.output)
    else:
        limits = (given.shortest, given.longest)
        more = {"passes": given.passes, "read": given.read}
        facts = (given.slots, given.fps, given.rate, limits)
        nodes = given.nodes or simulate.nodes_for(given.hours, given.deadline, *facts, **more)
        found = simulate.simulate(given.hours, nodes, *facts, **more)
        print("\n".join(simulate.table(found, nodes, given.slots)))


def main():
    """The program; returns its exit code: 0 good, 1 an error that was told, 2 usage."""
    try:
        run(options().parse_args())
    except ClusterError as e:
        print(f"nnv-cluster: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nnv-cluster: interrupted; --resume goes on", file=sys.stderr)
        return 130
    return 0
