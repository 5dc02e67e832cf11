# SPDX-License-Identifier: MPL-2.0
"""Where tasks run: processes of this machine, or Ray's nodes.

Both give results in the order in which they are ready; nothing that is made of them may depend on
it. No more than a bounded number of tasks is in flight, so that memory does not grow with the film.
"""

import concurrent.futures
import os
import platform
import socket

from . import chunk
from .codecs import versions
from .errors import ClusterError, Interrupted

# How often a chunk is tried whose process was killed.
TRIES = 4
# Where a head listens that was given no port.
HEAD_PORT = 6379


class LocalEngine:
    """Processes of this machine."""

    def __init__(self, workers=None):
        self.slots = workers or os.cpu_count() or 1
        self.nodes = [platform.node()]

    def versions(self, settings):
        """Versions of each node, by its name."""
        return {self.nodes[0]: versions(settings)}

    def results(self, jobs):
        """Yields `(job, record, bytes)` as jobs are done."""
        jobs = iter(jobs)
        with concurrent.futures.ThreadPoolExecutor(self.slots) as pool:
            flying = {}
            try:
                while True:
                    while len(flying) < self.slots and (job := next(jobs, None)) is not None:
                        flying[pool.submit(chunk.run, job)] = (job, 1)
                    if not flying:
                        return
                    done, _ = concurrent.futures.wait(
                        flying, return_when=concurrent.futures.FIRST_COMPLETED
                    )
                    for future in done:
                        job, tries = flying.pop(future)
                        try:
                            record, data = future.result()
                        except Interrupted as e:
                            if tries == TRIES:
                                raise gave_up(e) from e
                            flying[pool.submit(chunk.run, job)] = (job, tries + 1)
                            continue
                        yield job, record, data
            finally:
                for future in flying:
                    future.cancel()

    def close(self):
        """Nothing is held."""


def gave_up(error):
    """The error of a chunk that was killed each time."""
    return ClusterError(f"{error}, {TRIES} times; is there too little memory for a task?")


class RayEngine:
    """Nodes of a Ray cluster, `auto` or an address."""

    def __init__(self, address, cpus=1, in_flight=None):
        try:
            import ray
        except ImportError as e:
            raise ClusterError(
                "Ray is not installed: pip install 'nnv-cluster[ray]', or use --address local"
            ) from e
        self.ray = ray
        self.cpus = cpus
        self.begun = not ray.is_initialized()
        if self.begun:
            address = reachable(address)
            try:
                ray.init(
                    address=address, log_to_driver=False, logging_level="ERROR",
                    configure_logging=False,
                )
            except (ConnectionError, OSError, RuntimeError, ValueError) as e:
                line = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
                raise ClusterError(
                    f"no Ray cluster at {address}: {line}; begin one with ray start --head"
                ) from e
        self.alive = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= cpus]
        if not self.alive:
            raise ClusterError(f"no node of the Ray cluster has {cpus} CPUs for a task")
        self.nodes = [f"{n['NodeManagerHostname']}/{n['NodeID'][:8]}" for n in self.alive]
        self.slots = sum(int(n["Resources"]["CPU"] // cpus) for n in self.alive)
        # One task waits on each slot, so that none is idle between two.
        self.in_flight = in_flight or 2 * self.slots

    def versions(self, settings):
        """Versions of each node, by its name."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = self.ray.remote(num_cpus=0, max_retries=2)(node_versions)
        asked = {}
        for name, node in zip(self.nodes, self.alive):
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[name] = task.options(scheduling_strategy=here).remote(settings)
        result = {}
        for name, answer in asked.items():
            try:
                result[name] = self.ray.get(answer, timeout=300)
            except Exception as e:
                raise ClusterError(f"node {name}: {reason(e)}") from e
        return result

    def results(self, jobs):
        """Yields `(job, record, bytes)` as jobs are done."""
        ray, jobs = self.ray, iter(jobs)
        # Ray begins a task anew whose worker or node is lost; the rest is for us.
        task = ray.remote(num_cpus=self.cpus, max_retries=TRIES - 1)(chunk.run)
        flying = {}
        try:
            while True:
                while len(flying) < self.in_flight and (job := next(jobs, None)) is not None:
                    flying[task.remote(job)] = (job, 1)
                if not flying:
                    return
                done, _ = ray.wait(list(flying), num_returns=1)
                for ref in done:
                    job, tries = flying.pop(ref)
                    try:
                        record, data = ray.get(ref)
                    except Exception as e:
                        if not passing(e):
                            raise ClusterError(reason(e)) from e
                        if tries == TRIES:
                            raise gave_up(reason(e)) from e
                        flying[task.remote(job)] = (job, tries + 1)
                        continue
                    yield job, record, data
        finally:
            for ref in flying:
                ray.cancel(ref, force=True)

    def close(self):
        """Leaves the cluster."""
        if self.begun:
            self.ray.shutdown()


def reachable(address):
    """The address with its port; Ray itself waits for minutes for a head that is not there.

    Raises ClusterError where nothing answers.
    """
    if address == "auto" or "://" in address:
        return address
    host, colon, port = address.rpartition(":")
    host, port = (host, port) if colon else (address, str(HEAD_PORT))
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as e:
        raise ClusterError(
            f"no Ray cluster at {host}:{port}: {getattr(e, 'strerror', None) or e}; begin one with "
            "ray start --head"
        ) from e
    return f"{host}:{port}"


def node_versions(settings):
    """Task: the versions of the node that it runs on."""
    return versions(settings)


def passing(error):
    """Whether a task failed for what another try may not meet."""
    import ray.exceptions as kinds

    cause = getattr(error, "cause", None)
    lost = (kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.ObjectLostError,
            kinds.OutOfMemoryError, kinds.LocalRayletDiedError)
    return isinstance(error, lost) or isinstance(error, Interrupted) or isinstance(
        cause, Interrupted)


def reason(error):
    """One line of an error of Ray's: the task's own where there is one."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, ModuleNotFoundError):
        return f"{cause}; install nnv-cluster there"
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return lines[0] if isinstance(cause, ClusterError) else (lines or [type(cause).__name__])[-1]


def engine_of(address, workers=None, cpus=1, in_flight=None):
    """The engine of `--address`."""
    if address == "local":
        return LocalEngine(workers)
    return RayEngine(address, cpus, in_flight)


def common_versions(found, warn):
    """The versions that all nodes share.

    Raises ClusterError that names what differs, and where; kinds of processors are warned of.
    """
    names = list(found)
    first = found[names[0]]
    for name in names[1:]:
        here, there = first["software"], found[name]["software"]
        for what in sorted(set(here) | set(there)):
            if here.get(what) != there.get(what):
                raise ClusterError(
                    f"{what} differs: {here.get(what, 'none')} on {names[0]}, "
                    f"{there.get(what, 'none')} on {name}; install the same on every node"
                )
    kinds = sorted({v["processor"] for v in found.values()})
    if len(kinds) > 1:
        warn(
            f"processors differ ({', '.join(kinds)}): an encoder may choose otherwise on each, so "
            "another run may give other bytes; they decode alike"
        )
    return first
