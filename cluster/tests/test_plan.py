# SPDX-License-Identifier: MPL-2.0
"""Cutting, rates, simulation: what needs neither the plugin nor Ray."""

import math
import random

import pytest

from nnv_cluster import rate, simulate
from nnv_cluster.engine import common_versions
from nnv_cluster.errors import ClusterError
from nnv_cluster.plan import Chunk, Plan, cut, shots
from nnv_cluster.store import Store

pytestmark = pytest.mark.plain


def test_shots_are_large_changes_among_small_ones():
    quiet = [0.0] + [1.0] * 40
    quiet[20] = 30.0
    assert shots(quiet) == [20]
    # Everything changes: no cut in it.
    assert shots([0.0] + [30.0] * 40) == []
    # A change that is small against 255.
    assert shots([0.0] + [0.1] * 10 + [5.0] + [0.1] * 10) == []


@pytest.mark.parametrize("seed", range(40))
def test_chunks_cover_the_source_within_the_limits(seed):
    rng = random.Random(seed)
    frames = rng.randint(1, 1500)
    shortest, longest = 50, rng.choice([100, 250])
    differences = [rng.random() for _ in range(frames)]
    cuts = sorted(rng.sample(range(frames), min(frames, rng.randint(0, 40))))
    begins = cut(frames, cuts, differences, shortest, longest)
    lengths = [b - a for a, b in zip(begins, begins[1:] + [frames])]
    assert begins[0] == 0 and sum(lengths) == frames
    assert len(lengths) == 1 or min(lengths) >= shortest
    assert all(length <= longest + shortest for length in lengths)


def test_chunks_begin_with_shots():
    assert cut(300, [60, 70, 130], [0.0] * 300, 50, 250) == [0, 60, 130]
    # The shot at 280 would leave too little behind it.
    assert cut(300, [280], [0.0] * 300, 50, 350) == [0]


def chunks_of(count, rng):
    return [
        Chunk(i, 50 * i, 50, 0, f"{rng.getrandbits(64):x}", rng.uniform(0, 20), rng.uniform(1, 30))
        for i in range(count)
    ]


@pytest.mark.parametrize("kbits", [60, 400, 2500])
@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_a_mean_rate_is_met(kbits, count):
    rng = random.Random(count)
    chunks = chunks_of(count, rng)
    # What no model knows.
    own = {c.index: rng.lognormvariate(8.5, 0.6) for c in chunks}
    slope = {c.index: rng.uniform(0.05, 0.07) for c in chunks}
    plan = Plan("", 0, "", "", 96, 64, (25, 1), 50 * count, 0, [], chunks)

    def code(wanted):
        return {(i, q): max(1, int(own[i] * 50 * math.exp(-slope[i] * q) / 8)) for i, q in wanted}

    calls = []

    def counted(wanted):
        calls.append(len(wanted))
        return code(wanted)

    quantizers, reached = rate.plan_rate(plan, kbits, 63, counted)
    size = sum(code(set(quantizers.items())).values())
    assert reached == pytest.approx(size * 8 / plan.seconds / 1000)
    assert max(quantizers.values()) - min(quantizers.values()) <= 1
    most, least = (sum(code({(c.index, q) for c in chunks}).values()) * 8 / plan.seconds / 1000
                   for q in (0, 63))
    if least < kbits < most:
        # One step of one chunk is 5 to 7 %.
        assert reached == pytest.approx(kbits, rel=max(0.02, 0.08 / count))
    assert (quantizers, reached) == rate.plan_rate(plan, kbits, 63, code)


def test_simulation():
    facts = (1, 24, 12.0, (2, 10))
    one = simulate.simulate(2, 1, *facts)
    ten = simulate.simulate(2, 10, *facts)
    assert one["busy"] == pytest.approx(1)
    # 2 h at half the speed of the film, and 2 s for each of about 1200 chunks.
    assert one["coding_hours"] == pytest.approx(4 + 2 * one["chunks"] / 3600, rel=0.05)
    assert ten["coding_hours"] == pytest.approx(one["coding_hours"] / 10, rel=0.02)
    nodes = simulate.nodes_for(2, 1.5, *facts)
    assert simulate.simulate(2, nodes, *facts)["total_hours"] <= 1.5
    assert simulate.simulate(2, nodes - 1, *facts)["total_hours"] > 1.5
    with pytest.raises(ClusterError, match="no number of nodes"):
        simulate.nodes_for(2, 0.1, *facts)


def test_versions_that_differ_are_named():
    a = {"software": {"plugin": "1", "runtime": "7"}, "processor": "x"}
    b = {"software": {"plugin": "1", "runtime": "8"}, "processor": "x"}
    with pytest.raises(ClusterError, match="runtime differs: 7 on one, 8 on two"):
        common_versions({"one": a, "two": b}, pytest.fail)
    told = []
    assert common_versions({"one": a, "two": {**a, "processor": "y"}}, told.append) == a
    assert "processors differ (x, y)" in told[0]


def test_a_store_gives_only_what_is_whole(tmp_path):
    import hashlib

    store, data = Store(str(tmp_path / "s")), b"chunk"
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    record = {"key": "k", "index": 3, "hash": digest, "frames": 1}
    with pytest.raises(ClusterError, match="chunk 3 was changed"):
        store.put("k", "nnv", record, b"chuNk")
    assert store.find("k", "nnv") is None
    store.put("k", "nnv", record, data)
    assert store.find("k", "nnv") == record
    (tmp_path / "s" / "k.nnv").write_bytes(b"chunK")
    assert store.find("k", "nnv") is None
