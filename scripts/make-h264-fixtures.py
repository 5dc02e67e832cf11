#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Writes tests/fixtures/h264: small synthetic streams by x264, and the quantizers of their
macroblocks
as FFmpeg's decoder tells them.

Needs ffmpeg with libx264, numpy, and PyAV (`av`). Other versions of x264 make other streams; the
tests know of these that they have 6x5 macroblocks (the first three: eight pictures, of which the
first of two B pictures is a reference), and what `still` and `pcm` are for.
"""

import subprocess
import tempfile
from pathlib import Path

import av
import numpy as np

OUT = Path(__file__).resolve().parent.parent / "tests/fixtures/h264"
FRACTAL = ("mandelbrot=s=96x80:rate=25:start_scale=0.5:end_scale=0.1:maxiter=100", 8)
TEST = ("testsrc2=s=96x80:r=25", 6)
NOISE = (r"nullsrc=s=48x32:r=25,geq=if(lt(X\,24)\,random(1)*255\,X*2+Y):random(2)*255:128", 2)
PLAIN = ("color=c=teal:s=96x80:r=25", 3)
SLOW = "-preset slow -g 50 -bf 2 "
# Name: source, format of samples, options.
STREAMS = {
    "cabac": (FRACTAL, "yuv420p", SLOW + "-crf 20 -x264-params b-adapt=0"),
    "cavlc": (
        FRACTAL,
        "yuv420p",
        SLOW + "-crf 22 -x264-params b-adapt=0:cabac=0:8x8dct=1:direct=temporal",
    ),
    "slices": (FRACTAL, "yuv420p", SLOW + "-crf 30 -x264-params b-adapt=0:slices=3"),
    "cabac_422_10": (TEST, "yuv422p10le", SLOW + "-crf 36"),
    "cavlc_422": (TEST, "yuv422p", SLOW + "-crf 36 -x264-params cabac=0"),
    "cabac_444": (TEST, "yuv444p", SLOW + "-crf 36"),
    "gray": (TEST, "gray", SLOW + "-crf 36 -x264-params cabac=0"),
    "pcm": (NOISE, "yuv420p", "-qp 1 -x264-params ipratio=1:psy=0"),
    "pcm_cavlc": (NOISE, "yuv420p", "-qp 1 -x264-params cabac=0:ipratio=1:psy=0"),
    "still": (PLAIN, "yuv420p", SLOW),
    "mbaff": (TEST, "yuv420p", SLOW + "-crf 40 -flags +ildct+ilme"),
}


def ffmpeg(*arguments) -> None:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL
    )


def quantizers(path: Path, ten_bits: bool) -> bytes:
    """Of all macroblocks, picture after picture in the order of decoding."""
    with av.open(str(path)) as file:
        order = [packet.pts for packet in file.demux(video=0) if packet.size]
    shown = {}
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.codec_context.options = {"export_side_data": "venc_params"}
        stream.codec_context.thread_count = 1
        count = -(-stream.width // 16) * -(-stream.height // 16)
        for frame in file.decode(stream):
            (told,) = (d for d in frame.side_data if hasattr(d, "qp_map"))
            # FFmpeg counts from the least there is.
            shown[frame.pts] = np.array(told.qp_map()).ravel()[:count] - 12 * ten_bits
    return np.concatenate([shown[pts] for pts in order]).astype(np.int8).tobytes()


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, ((source, frames), samples, options) in STREAMS.items():
            coded = Path(folder) / f"{name}.mkv"
            ffmpeg(
                "-f",
                "lavfi",
                "-i",
                source,
                "-frames:v",
                frames,
                "-an",
                "-c:v",
                "libx264",
                "-threads",
                1,
                "-pix_fmt",
                samples,
                *options.split(),
                coded,
            )
            ffmpeg(
                "-i",
                coded,
                "-c",
                "copy",
                "-bsf:v",
                "h264_mp4toannexb,filter_units=remove_types=6",
                "-f",
                "h264",
                OUT / f"{name}.h264",
            )
            # Macroblocks that change between frame and field are not read.
            if name != "mbaff":
                (OUT / f"{name}.qp").write_bytes(quantizers(coded, samples.endswith("10le")))


if __name__ == "__main__":
    main()
