# SPDX-License-Identifier: MPL-2.0
"""Reading and writing media with GStreamer: whole sources, exact ranges of frames, decoded chunks.

Times are running times in ns, so that edit lists and other segments count once.
"""

import hashlib
import os
import sys
from dataclasses import dataclass
from fractions import Fraction

from .errors import ClusterError

# Longest wait for one frame: a loaded machine may take long for a neural frame.
PATIENCE_S = float(os.environ.get("NNV_CLUSTER_PATIENCE", "600"))
SECOND = 1_000_000_000


def gst():
    """GStreamer's modules `(Gst, GstVideo)`, initialised.

    Raises ClusterError where Python's binding is missing.
    """
    try:
        import gi

        for name in ("Gst", "GstApp", "GstVideo"):
            gi.require_version(name, "1.0")
        from gi.repository import Gst, GstApp, GstVideo  # noqa: F401
    except (ImportError, ValueError) as e:
        raise ClusterError(
            f"Python {sys.executable} has no GStreamer binding ({e}); install python3-gi, "
            "gir1.2-gstreamer-1.0 and gir1.2-gst-plugins-base-1.0"
        ) from e
    if not Gst.is_initialized():
        Gst.init(None)
    return Gst, GstVideo


def element_exists(name):
    """Whether this machine has an element of this name."""
    return gst()[0].ElementFactory.find(name) is not None


@dataclass
class Frame:
    """A decoded picture."""

    buffer: object
    #: Running time in ns.
    time: int
    #: The decoder said that it is damaged.
    corrupted: bool
    #: Where the planes lie, see `planes_of`.
    planes: tuple

    def rows(self):
        """The bytes that are picture, row by row of each plane: padding is no part of it."""
        gst_module, _ = gst()
        ok, mapped = self.buffer.map(gst_module.MapFlags.READ)
        if not ok:
            raise ClusterError("a decoded picture cannot be read: out of memory?")
        try:
            data = memoryview(mapped.data)
            for offset, stride, width, height in self.planes:
                for y in range(height):
                    begin = offset + y * stride
                    yield data[begin : begin + width]
        finally:
            self.buffer.unmap(mapped)


def planes_of(buffer, info):
    """`(offset, stride, bytes a row, rows)` of each plane of a picture."""
    _, video = gst()
    meta = video.buffer_get_video_meta(buffer)
    offsets = meta.offset if meta else info.offset
    strides = meta.stride if meta else info.stride
    result = []
    # Planes of I420 and I420_10LE hold one component each, in order.
    for plane in range(info.finfo.n_planes):
        across, down = info.finfo.w_sub[plane], info.finfo.h_sub[plane]
        width = (info.width + (1 << across) - 1) >> across
        height = (info.height + (1 << down) - 1) >> down
        size = info.finfo.pixel_stride[plane]
        result.append((offsets[plane], strides[plane], width * size, height))
    return tuple(result)


class Pictures:
    """Decodes a file; iterating gives a `Frame` for each picture, from `seek`'s place on.

    Sound and text are not decoded; where they end is in `ends` once the source is read to its end.
    """

    def __init__(self, path, follow_others=False):
        gst_module, _ = gst()
        self.path = path
        self.caps = None
        self.ends = {}
        #: `(kind, caps)` of each stream that is no picture.
        self.others = []
        self.warnings = []
        self._info = None
        self._follow = follow_others
        self._ended = False
        if not os.path.isfile(path):
            raise ClusterError(f"{path}: no such file; every node needs the source at this path")
        if os.path.getsize(path) == 0:
            raise ClusterError(f"{path}: the source is empty")
        try:
            open(path, "rb").close()
        except OSError as e:
            raise ClusterError(f"{path}: {e.strerror}; the source must be readable") from e
        self.pipeline = gst_module.Pipeline.new(None)
        self.bus = self.pipeline.get_bus()
        source = gst_module.ElementFactory.make("filesrc")
        source.set_property("location", path)
        parse = gst_module.ElementFactory.make("parsebin")
        self.sink = gst_module.parse_bin_from_description(
            "decodebin name=d ! videoconvert dither=none n-threads=1 ! "
            "video/x-raw,format=(string){ I420, I420_10LE } ! "
            "appsink name=k sync=false max-buffers=4",
            False,
        )
        # decodebin has its pads later: the bin's own sink is decodebin's.
        decode = self.sink.get_by_name("d")
        self.sink.add_pad(gst_module.GhostPad.new("sink", decode.get_static_pad("sink")))
        self.appsink = self.sink.get_by_name("k")
        for element in (source, parse, self.sink):
            self.pipeline.add(element)
        source.link(parse)
        self._video = None
        self._no_more = False
        parse.connect("pad-added", self._pad)
        parse.connect("no-more-pads", self._all_pads)

    def _all_pads(self, _parse):
        self._no_more = True

    def _pad(self, _parse, pad):
        gst_module, _ = gst()
        caps = pad.get_current_caps() or pad.query_caps(None)
        name = caps.get_structure(0).get_name()
        kind = name.split("/")[0]
        if kind in ("video", "image") and self._video is None:
            self._video = pad
            pad.link(self.sink.get_static_pad("sink"))
            return
        key = len(self.others)
        self.others.append((name, caps.to_string()))
        drain = gst_module.parse_bin_from_description(
            "queue max-size-bytes=0 max-size-buffers=0 max-size-time=0 ! "
            "fakesink sync=false async=false",
            True,
        )
        self.pipeline.add(drain)
        drain.sync_state_with_parent()
        pad.link(drain.get_static_pad("sink"))
        if self._follow:
            pad.add_probe(gst_module.PadProbeType.BUFFER, self._passed, key)

    def _passed(self, pad, info, key):
        gst_module, _ = gst()
        buffer = info.get_buffer()
        event = pad.get_sticky_event(gst_module.EventType.SEGMENT, 0)
        if event is not None and buffer.pts != gst_module.CLOCK_TIME_NONE:
            time = event.parse_segment().to_running_time(gst_module.Format.TIME, buffer.pts)
            if time != gst_module.CLOCK_TIME_NONE:
                if buffer.duration != gst_module.CLOCK_TIME_NONE:
                    time += buffer.duration
                self.ends[key] = max(self.ends.get(key, 0), time)
        return gst_module.PadProbeReturn.OK

    def _messages(self, until_end=False):
        """Looks at what elements tell; with `until_end`, until all streams have ended."""
        gst_module, _ = gst()
        kinds = (
            gst_module.MessageType.ERROR
            | gst_module.MessageType.WARNING
            | gst_module.MessageType.EOS
        )
        wait = int(PATIENCE_S) * SECOND if until_end else 0
        while not (until_end and self._ended):
            message = self.bus.timed_pop_filtered(wait, kinds)
            if message is None:
                if until_end:
                    raise ClusterError(f"{self.path}: its sound or text does not end")
                return
            if message.type == gst_module.MessageType.EOS:
                self._ended = True
                continue
            if message.type == gst_module.MessageType.ERROR:
                error, _detail = message.parse_error()
                raise ClusterError(f"{self.path}: cannot be decoded: {error.message}")
            error, _detail = message.parse_warning()
            self.warnings.append(error.message)

    def start(self):
        """Reads up to the first picture.

        Raises ClusterError where there is none.
        """
        gst_module, _ = gst()
        self.pipeline.set_state(gst_module.State.PAUSED)
        deadline = PATIENCE_S
        while deadline > 0:
            self._messages()
            result, state, _pending = self.pipeline.get_state(gst_module.SECOND // 5)
            if result == gst_module.StateChangeReturn.FAILURE:
                self._messages()
                raise ClusterError(f"{self.path}: cannot be decoded")
            if state == gst_module.State.PAUSED and result != gst_module.StateChangeReturn.ASYNC:
                break
            if self._no_more and self._video is None:
                raise ClusterError(f"{self.path}: there is no video in it")
            deadline -= 0.2
        else:
            raise ClusterError(f"{self.path}: no picture in {PATIENCE_S:.0f} s")
        return self

    def seek(self, time):
        """Goes to the key frame at or before a running time (ns). False where it cannot."""
        gst_module, _ = gst()
        flags = (
            gst_module.SeekFlags.FLUSH
            | gst_module.SeekFlags.KEY_UNIT
            | gst_module.SeekFlags.SNAP_BEFORE
        )
        done = self.pipeline.seek_simple(gst_module.Format.TIME, flags, max(0, time))
        if done:
            self.pipeline.get_state(int(PATIENCE_S) * gst_module.SECOND)
        return done

    def __iter__(self):
        gst_module, video = gst()
        self.pipeline.set_state(gst_module.State.PLAYING)
        while True:
            sample = self.appsink.try_pull_sample(int(PATIENCE_S) * gst_module.SECOND)
            self._messages()
            if sample is None:
                if self.appsink.get_property("eos"):
                    # Sound may be read after the last picture.
                    self._messages(until_end=self._follow)
                    return
                raise ClusterError(f"{self.path}: no picture in {PATIENCE_S:.0f} s")
            caps = sample.get_caps()
            if self.caps is None or not self.caps.is_equal(caps):
                if self.caps is not None:
                    raise ClusterError(
                        f"{self.path}: pictures change from {self.caps.to_string()} to "
                        f"{caps.to_string()}; cut the source there and code the parts"
                    )
                self.caps = caps
                self._info = video.VideoInfo.new_from_caps(caps)
            buffer, segment = sample.get_buffer(), sample.get_segment()
            # Stream time, not running time: a flushing seek sets the latter back to 0.
            time = segment.to_stream_time(gst_module.Format.TIME, buffer.pts)
            if time == gst_module.CLOCK_TIME_NONE:
                continue
            corrupted = buffer.has_flags(gst_module.BufferFlags.CORRUPTED)
            yield Frame(buffer, time, corrupted, planes_of(buffer, self._info))

    def close(self):
        """Stops. Warnings of the decoder are in `warnings`."""
        gst_module, _ = gst()
        self.pipeline.set_state(gst_module.State.NULL)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()

    @property
    def info(self):
        """GstVideoInfo of the pictures."""
        return self._info


def picture_hash(frame):
    """Hash of one picture's samples."""
    digest = hashlib.blake2b(digest_size=16)
    for row in frame.rows():
        digest.update(row)
    return digest.digest()


def grid(first, index, rate):
    """Time of a frame on the grid of the frame rate, in ns."""
    return first + int(Fraction(index * SECOND) / rate)


class Coder:
    """Pictures in, access units out, through elements in gst-launch's notation."""

    def __init__(self, description, caps):
        gst_module, _ = gst()
        try:
            self.pipeline = gst_module.parse_launch(
                "appsrc name=s format=time max-buffers=4 block=true ! " + description
            )
        except Exception as e:
            raise ClusterError(f"{description}: {getattr(e, 'message', e)}") from e
        self.source = self.pipeline.get_by_name("s")
        self.source.set_property("caps", caps)
        self.bus = self.pipeline.get_bus()
        self.pipeline.set_state(gst_module.State.PLAYING)

    def send(self, buffer, pts, duration):
        """Codes a picture, shown at `pts` ns."""
        gst_module, _ = gst()
        # A copy of the buffer's facts; memory is shared.
        buffer = buffer.copy_region(
            gst_module.BufferCopyFlags.FLAGS
            | gst_module.BufferCopyFlags.META
            | gst_module.BufferCopyFlags.MEMORY,
            0,
            buffer.get_size(),
        )
        buffer.unset_flags(gst_module.BufferFlags.DISCONT)
        buffer.pts, buffer.dts, buffer.duration = pts, gst_module.CLOCK_TIME_NONE, duration
        if self.source.emit("push-buffer", buffer) != gst_module.FlowReturn.OK:
            self._wait(10)
            raise ClusterError("the encoder takes no more pictures")

    def force_key_at(self, time):
        """Asks the encoder for a key frame at a running time; before its frame is sent."""
        gst_module, video = gst()
        event = video.video_event_new_upstream_force_key_unit(time, False, 0)
        encoder = self.pipeline.get_by_name("e")
        encoder.get_static_pad("src").send_event(event)

    def _wait(self, seconds):
        gst_module, _ = gst()
        kinds = gst_module.MessageType.ERROR | gst_module.MessageType.EOS
        message = self.bus.timed_pop_filtered(int(seconds * SECOND), kinds)
        if message is None:
            return False
        if message.type == gst_module.MessageType.ERROR:
            raise ClusterError(message.parse_error()[0].message)
        return True

    def finish(self):
        """Waits until all is written."""
        self.source.emit("end-of-stream")
        if not self._wait(PATIENCE_S):
            raise ClusterError(f"the encoder does not end within {PATIENCE_S:.0f} s")
        self.close()

    def close(self):
        """Stops at once."""
        gst_module, _ = gst()
        self.pipeline.set_state(gst_module.State.NULL)
