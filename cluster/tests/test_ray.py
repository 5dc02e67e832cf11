# SPDX-License-Identifier: MPL-2.0
"""Runs on a Ray cluster of several nodes on this machine: workers and nodes that die, versions."""

import json
import os
import shutil
import signal
import threading
import time

import pytest

pytestmark = pytest.mark.ray
QUANTIZER = 36


@pytest.fixture(scope="module")
def nodes():
    """A cluster of a head without processors and four nodes of one each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(4):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    from conftest import film
    from nnv_cluster.plan import make_plan

    path = tmp_path_factory.mktemp("ray") / "film.mp4"
    film(path, shots=(60, 55, 70, 50, 65), sound=False)
    result = make_plan(str(path))
    assert len(result.chunks) == 5
    return result


@pytest.fixture(scope="module")
def settings():
    from nnv_cluster.codecs import Settings

    return Settings(properties=(("speed-preset", "fast"),))


def coded(plan, settings, engine, folder, during=None):
    """Bytes of all chunks, behind each other."""
    from nnv_cluster.encode import Film
    from nnv_cluster.engine import common_versions
    from nnv_cluster.store import Store

    versions = common_versions(engine.versions(settings), pytest.fail)
    film = Film(plan, settings, versions, Store(str(folder)))
    chosen = {chunk.index: QUANTIZER for chunk in plan.chunks}
    thread = threading.Thread(target=during) if during else None
    if thread:
        thread.start()
    film.code(engine, set(chosen.items()))
    if thread:
        thread.join()
    return b"".join(open(path, "rb").read() for path in film.files(chosen))


@pytest.fixture(scope="module")
def alone(plan, settings, tmp_path_factory):
    """What one worker without Ray gives."""
    from nnv_cluster.engine import LocalEngine

    return coded(plan, settings, LocalEngine(1), tmp_path_factory.mktemp("alone"))


def task_of(source):
    """`(process, parent)` of a running task for a source."""
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            if b"nnv_cluster.chunk" not in words:
                continue
            with open(words[words.index(b"nnv_cluster.chunk") + 1], encoding="utf-8") as file:
                if json.load(file)["plan"]["source"] != source:
                    continue
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                return int(entry), int(file.read().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError, KeyError):
            continue
    return None


def wait_for_task(source):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if found := task_of(source):
            return found
        time.sleep(0.05)
    return None


def test_nodes_give_what_one_process_gives(nodes, plan, settings, alone, tmp_path):
    from nnv_cluster.engine import RayEngine

    engine = RayEngine(nodes.address)
    try:
        assert (engine.slots, len(engine.nodes), engine.in_flight) == (4, 4, 8)
        assert coded(plan, settings, engine, tmp_path / "all") == alone
        # No more tasks in flight than were allowed.
        engine.in_flight = 1
        assert coded(plan, settings, engine, tmp_path / "one") == alone
    finally:
        engine.close()


@pytest.mark.parametrize("victim", ["task", "worker"])
def test_what_was_killed_is_done_again(nodes, plan, settings, alone, tmp_path, victim):
    from nnv_cluster.engine import RayEngine

    killed = []

    def kill():
        if found := wait_for_task(plan.source):
            killed.append(found[victim == "worker"])
            os.kill(killed[0], signal.SIGKILL)

    engine = RayEngine(nodes.address)
    try:
        assert coded(plan, settings, engine, tmp_path, kill) == alone
    finally:
        engine.close()
    assert killed


def test_a_lost_node_is_done_without(nodes, plan, settings, alone, tmp_path):
    from nnv_cluster.engine import RayEngine

    lost = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    gone = []

    def remove():
        if wait_for_task(plan.source):
            nodes.remove_node(lost, allow_graceful=False)
            gone.append(lost)

    engine = RayEngine(nodes.address)
    try:
        assert len(engine.nodes) == 5
        assert coded(plan, settings, engine, tmp_path, remove) == alone
    finally:
        engine.close()
    assert gone


def test_a_node_with_another_plugin_is_refused(nodes, plan, settings, tmp_path):
    from nnv_cluster.engine import RayEngine, common_versions
    from nnv_cluster.errors import ClusterError
    from nnv_cluster.media import gst

    factory = gst()[0].ElementFactory.find("nnvenc")
    other = tmp_path / "plugins"
    other.mkdir()
    shutil.copy(factory.get_plugin().get_filename(), other / "libgstnnv.so")
    with open(other / "libgstnnv.so", "ab") as file:
        file.write(b"another build")
    node = nodes.add_node(
        num_cpus=1,
        env_vars={"GST_PLUGIN_PATH": str(other), "GST_REGISTRY": str(tmp_path / "registry.bin")},
    )
    nodes.wait_for_nodes()
    engine = RayEngine(nodes.address)
    try:
        with pytest.raises(ClusterError, match="plugin of nnvenc differs: .* install the same"):
            common_versions(engine.versions(settings), pytest.fail)
    finally:
        engine.close()
        nodes.remove_node(node)


def test_no_cluster_is_one_line():
    from nnv_cluster.engine import RayEngine
    from nnv_cluster.errors import ClusterError

    with pytest.raises(ClusterError, match="no Ray cluster at 127.0.0.1:1: "):
        RayEngine("127.0.0.1:1")
