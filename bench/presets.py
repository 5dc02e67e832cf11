#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Each preset of nnvenc on a clip of its kind: rate, quality and delay, as a table in Markdown.

    source scripts/env.sh && bench/presets.py FOLDER

FOLDER has the clips of `data/test/video`. Needs Python's binding of GStreamer with the plugin on
its path. Environment: FRAMES bounds the frames of a clip, WIDTH is what wider ones are scaled to,
PRESETS are the presets to measure.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("GST_PRESET_PATH", str(ROOT / "data/presets"))

import gi  # noqa: E402

gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gst, GstVideo  # noqa: E402

CLIPS = {
    "call": "talking_head.mp4",
    "camera": "vtest.avi",
    "lecture": "talking_head.mp4",
    "screen": "screencast.mp4",
    "drone": "bikes.mp4",
    "medical": "medical_ultrasound_pydicom_30f.mkv",
    "archive": "mobile_cif_30f.mkv",
}
FRAMES = int(os.environ.get("FRAMES", "60"))
WIDTH = int(os.environ.get("WIDTH", "320"))
PRESETS = os.environ.get("PRESETS", " ".join(CLIPS)).split()
QUEUE = "queue max-size-buffers=0 max-size-bytes=0 max-size-time=0"


def measured(preset, clip):
    """Size, rate in kbit/s, PSNR in dB, SSIM and latency in ms."""
    pipeline = Gst.parse_launch(
        f'filesrc location="{clip}" ! decodebin ! videoconvert ! videoscale ! '
        f"video/x-raw,format=I420,width=[1,{WIDTH}],pixel-aspect-ratio=1/1 ! "
        f"tee name=t t. ! {QUEUE} ! q.reference "
        f"t. ! {QUEUE} ! nnvenc name=e ! nnvparse ! nnvdec ! {QUEUE} ! q.distorted "
        "nnvquality name=q ! fakesink sync=false"
    )
    encoder, tee = pipeline.get_by_name("e"), pipeline.get_by_name("t")
    if not encoder.load_preset(preset):
        sys.exit(f"there is no preset {preset} in {os.environ['GST_PRESET_PATH']}")
    came, sizes = [0], []

    def comes(_pad, _info):
        came[0] += 1
        return Gst.PadProbeReturn.OK if came[0] <= FRAMES else Gst.PadProbeReturn.DROP

    def leaves(_pad, info):
        sizes.append(8 * info.get_buffer().get_size())
        return Gst.PadProbeReturn.OK

    tee.get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, comes)
    encoder.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, leaves)
    pipeline.set_state(Gst.State.PLAYING)
    summary, bus = None, pipeline.get_bus()
    kinds = Gst.MessageType.EOS | Gst.MessageType.ERROR | Gst.MessageType.ELEMENT
    while True:
        message = bus.timed_pop_filtered(Gst.CLOCK_TIME_NONE, kinds)
        if message.type == Gst.MessageType.ERROR:
            sys.exit(message.parse_error()[0].message)
        if message.type == Gst.MessageType.EOS:
            break
        if message.get_structure().get_name() == "nnvquality-summary":
            summary = message.get_structure()
    caps = encoder.get_static_pad("sink").get_current_caps()
    info = GstVideo.VideoInfo.new_from_caps(caps)
    rate = info.fps_n / info.fps_d if info.fps_n else 25
    latency = encoder.get_latency()[0] / Gst.MSECOND
    pipeline.set_state(Gst.State.NULL)
    number = {name: summary.get_value(name) for name in ("psnr-weighted-error", "ssim-y")}
    return (
        f"{info.width}×{info.height}, {rate:.4g}/s, {len(sizes)}",
        sum(sizes) * rate / len(sizes) / 1000,
        number["psnr-weighted-error"],
        number["ssim-y"],
        latency,
    )


def main():
    Gst.init(None)
    folder = Path(sys.argv[1])
    print("| preset | clip | size, rate, frames | kbit/s | PSNR | SSIM | delay |")
    print("|---|---|---|---:|---:|---:|---:|")
    for preset in PRESETS:
        size, kbits, psnr, ssim, latency = measured(preset, folder / CLIPS[preset])
        clip = Path(CLIPS[preset]).stem
        print(
            f"| `{preset}` | {clip} | {size} | {kbits:.0f} | {psnr:.2f} dB | {ssim:.4f} "
            f"| {latency:.0f} ms |",
            flush=True,
        )


if __name__ == "__main__":
    main()
