# SPDX-License-Identifier: MPL-2.0
"""Films that tests make, and what they need; what is missing is told loudly."""

import os
import shutil
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Processes of tasks need it, too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [sys.path[0]] + [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
)

RATE = 25
SIZE = (96, 64)


def missing():
    """What the tests lack on this machine, or None."""
    try:
        from nnv_cluster.media import element_exists

        for name in ("nnvenc", "nnvmp4mux", "x264enc", "avdec_h264", "voaacenc"):
            if not element_exists(name):
                return f"no element {name}; source scripts/env.sh, install plugins"
    except Exception as e:  # noqa: BLE001
        return str(e)
    if not program():
        return "no program nnv; put it on PATH or name it in NNV_PROGRAM"
    return None


def program():
    """The program `nnv`."""
    return os.environ.get("NNV_PROGRAM") or shutil.which("nnv")


def pytest_collection_modifyitems(items):
    """Skips what cannot run."""
    lack = missing()
    try:
        import ray  # noqa: F401

        no_ray = None
    except ImportError:
        no_ray = "no Ray: pip install 'ray>=2.40'"
    for item in items:
        if "plain" in item.keywords:
            continue
        if lack:
            item.add_marker(pytest.mark.skip(reason=lack))
        elif no_ray and "ray" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=no_ray))


def pytest_configure(config):
    """Markers; and skips shown in every run."""
    config.addinivalue_line("markers", "plain: needs neither the plugin nor Ray")
    config.addinivalue_line("markers", "ray: needs Ray")
    if "s" not in config.option.reportchars:
        config.option.reportchars += "s"


def shot(number, frame, size=SIZE):
    """A picture of a shot: a grating that moves, its own for each shot."""
    import numpy

    width, height = size
    x, y = numpy.meshgrid(numpy.arange(width), numpy.arange(height))
    kinds = [(5, 3, 60), (-11, 2, 150), (2, 9, 100), (7, -7, 180)]
    a, b, mean = kinds[number % len(kinds)]
    plane = mean + 40 * numpy.sin((a * x + b * y) / 40 + frame / 9 + number)
    u = numpy.full((height // 2, width // 2), 110 + 20 * (number % 3))
    v = numpy.full((height // 2, width // 2), 150 - 20 * (number % 3))
    return b"".join(p.astype(numpy.uint8).tobytes() for p in (plane, u, v))


def film(path, shots=(70, 30, 90), encoder=None, sound=True, times=None, seconds=None, size=SIZE):
    """Makes a film of shots so many frames long, with key frames where the encoder likes."""
    from nnv_cluster.media import SECOND, Coder, gst

    gst_module, _ = gst()
    total = sum(shots)
    muxer = "matroskamux" if str(path).endswith("mkv") else "mp4mux"
    # Open groups and key frames that are no cuts: the hard case for a seek.
    coding = encoder or (
        "x264enc name=e threads=1 bframes=3 key-int-max=37 quantizer=18 pass=qual "
        "option-string=scenecut=0:open-gop=1 ! h264parse"
    )
    description = f'{coding} ! {muxer} name=m ! filesink location="{path}"'
    if sound:
        blocks = round((seconds or total / RATE) * 44100 / 1024)
        description += (
            f"  audiotestsrc num-buffers={blocks} wave=ticks ! audio/x-raw,rate=44100,channels=2 ! "
            "voaacenc ! aacparse ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! m."
        )
    caps = gst_module.Caps.from_string(
        f"video/x-raw,format=I420,width={size[0]},height={size[1]},framerate={RATE}/1"
    )
    coder = Coder(description, caps)
    at = 0
    for number, length in enumerate(shots):
        for frame in range(length):
            pts = times(at) if times else at * SECOND // RATE
            buffer = gst_module.Buffer.new_wrapped(shot(number, frame, size))
            coder.send(buffer, pts, SECOND // RATE)
            at += 1
    coder.finish()
    return str(path)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A film of three shots with sound."""
    return film(tmp_path_factory.mktemp("film") / "film.mp4")
