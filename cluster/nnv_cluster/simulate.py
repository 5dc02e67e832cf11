# SPDX-License-Identifier: MPL-2.0
"""How long a film takes on so many nodes, or how many nodes an hour needs."""

import heapq
import math
import random

from .errors import ClusterError


def durations(seconds, shortest, longest, frame_rate, frames_a_second, start, seed=0):
    """Times that chunks of a film take, in s: lengths between the limits, speeds that vary."""
    rng = random.Random(seed)
    left, result = seconds, []
    while left > 0:
        length = min(left, rng.uniform(shortest, longest))
        left -= length
        # Chunks differ in work by their content.
        result.append(start + length * frame_rate / frames_a_second * rng.lognormvariate(0, 0.2))
    return result


def schedule(times, workers):
    """When the last of the tasks ends, given in order to whichever worker is free, in s."""
    free = [0.0] * min(workers, len(times))
    for time in times:
        heapq.heappush(free, heapq.heappop(free) + time)
    return max(free)


def simulate(hours, nodes, slots, frame_rate, rate, limits, start=2.0, passes=1, read=200.0):
    """Facts of a run.

    `rate`: frames a second that one task codes and verifies, measured; `read`: frames a second of
    the probe, which one machine does; `start`: seconds a task takes before its first frame.
    """
    if min(hours, nodes, slots, frame_rate, rate, passes, read) <= 0:
        raise ClusterError("hours, nodes, slots and rates must be above zero")
    times = durations(hours * 3600, *limits, frame_rate, rate, start)
    frames = hours * 3600 * frame_rate
    coding = schedule(times * passes, nodes * slots)
    probe = frames / read
    work = sum(times) * passes
    return {
        "chunks": len(times),
        "probe_hours": probe / 3600,
        "coding_hours": coding / 3600,
        "total_hours": (probe + coding) / 3600,
        "slot_hours": work / 3600,
        "busy": work / (coding * nodes * slots),
    }


def nodes_for(hours, deadline, slots, frame_rate, rate, limits, **more):
    """The least number of nodes that ends within `deadline` hours.

    Raises ClusterError where none does.
    """
    low, high = 1, 1
    while simulate(hours, high, slots, frame_rate, rate, limits, **more)["total_hours"] > deadline:
        high *= 2
        if high > 1 << 20:
            raise ClusterError(
                f"no number of nodes ends within {deadline:g} h: reading the source and one chunk "
                "take longer"
            )
    while low < high:
        middle = (low + high) // 2
        facts = simulate(hours, middle, slots, frame_rate, rate, limits, **more)
        low, high = (low, middle) if facts["total_hours"] <= deadline else (middle + 1, high)
    return low


def table(facts, nodes, slots):
    """Lines for people."""
    return [
        f"nodes           {nodes}, {slots} tasks each",
        f"chunks          {facts['chunks']}",
        f"reading         {facts['probe_hours']:.2f} h, on one machine",
        f"coding          {facts['coding_hours']:.2f} h, workers busy {facts['busy']:.0%}",
        f"in all          {facts['total_hours']:.2f} h",
        f"work            {facts['slot_hours']:.1f} task-hours",
        f"more nodes help up to {math.ceil(facts['chunks'] / slots)}",
    ]
