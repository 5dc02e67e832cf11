# SPDX-License-Identifier: MPL-2.0
"""The writer: chunks behind each other, with the sound and the subtitles of the source."""

import os
import shutil
import struct
import subprocess
import tempfile

from .codecs import CODECS
from .errors import ClusterError
from .media import PATIENCE_S, SECOND, gst, grid

#: Muxers by the output's ending.
MUXERS = {".mp4": "mp4mux", ".m4v": "mp4mux", ".mkv": "matroskamux"}
#: What is put between a stream of sound or text of the source and the muxer.
PARSERS = {
    "audio/mpeg": {1: "mpegaudioparse", 2: "aacparse", 4: "aacparse"},
    "audio/x-ac3": "ac3parse",
    "audio/x-eac3": "ac3parse",
    "audio/x-flac": "flacparse",
    "audio/x-opus": "opusparse",
}
# The earliest decoding time may lie so much before the first picture.
EARLY = SECOND


def muxer_of(output, codec):
    """The muxer for an output, None for a bare stream.

    Raises ClusterError where an ending does not fit the codec.
    """
    ending = os.path.splitext(output)[1].lower()
    if codec == "nnv":
        if ending == ".nnv":
            return None
        if ending in (".mp4", ".m4v"):
            return "nnvmp4mux"
        raise ClusterError(f"{output}: codec nnv goes into .mp4, .m4v or .nnv")
    if ending in MUXERS:
        return MUXERS[ending]
    raise ClusterError(f"{output}: codec {codec} goes into {', '.join(MUXERS)}")


def nnv_program():
    """Path of the program `nnv`.

    Raises ClusterError where it is not there.
    """
    program = os.environ.get("NNV_PROGRAM") or shutil.which("nnv")
    if not program or not os.access(program, os.X_OK):
        raise ClusterError("the program nnv is not there: put it on PATH or name it in NNV_PROGRAM")
    return program


def join_nnv(files, out):
    """`nnv join`."""
    # Lists of files may be longer than a command line: joins of joins are the same bytes.
    program, at_once = nnv_program(), 500
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(out))) as folder:
        while len(files) > 1 or files[0].startswith(folder) is False:
            joined = []
            for begin in range(0, len(files), at_once):
                part = os.path.join(folder, f"{len(os.listdir(folder))}.nnv")
                done = subprocess.run(
                    [program, "join", *files[begin : begin + at_once], "-o", part],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode != 0:
                    raise ClusterError(f"nnv join: {done.stderr.strip().splitlines()[-1]}")
                joined.append(part)
            files = joined
        os.replace(files[0], out)


def quoted(path):
    """A file name as a description of a pipeline takes it."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def access_units(path, codec):
    """Yields `(buffer, caps, pts, dts)` of a coded chunk, running times in ns, dts signed."""
    gst_module, _ = gst()
    pipeline = gst_module.parse_launch(
        f'filesrc location={quoted(path)} ! qtdemux ! {codec.parser} ! {codec.caps} ! '
        "appsink name=k sync=false max-buffers=16"
    )
    sink = pipeline.get_by_name("k")
    pipeline.set_state(gst_module.State.PLAYING)
    try:
        while True:
            sample = sink.try_pull_sample(int(PATIENCE_S) * SECOND)
            if sample is None:
                if sink.get_property("eos"):
                    return
                raise ClusterError(f"{path}: the coded chunk cannot be read")
            buffer, segment = sample.get_buffer(), sample.get_segment()

            def running(time):
                sign, value = segment.to_running_time_full(gst_module.Format.TIME, time)
                return value if sign > 0 else -value

            dts = buffer.dts if buffer.dts != gst_module.CLOCK_TIME_NONE else buffer.pts
            yield buffer, sample.get_caps(), running(buffer.pts), running(dts)
    finally:
        pipeline.set_state(gst_module.State.NULL)


class Writer:
    """A pipeline that muxes coded pictures with what else is in the source."""

    def __init__(self, plan, video, muxer, out):
        gst_module, _ = gst()
        self.plan = plan
        others = ""
        if plan.others:
            others = f"  filesrc location={quoted(plan.source)} ! parsebin name=p"
        self.pipeline = gst_module.parse_launch(
            f'{video} ! {muxer} name=m ! filesink location={quoted(out)}' + others
        )
        self.bus = self.pipeline.get_bus()
        self.muxer = self.pipeline.get_by_name("m")
        parse = self.pipeline.get_by_name("p")
        if parse:
            # Pads are asked for before data flows: a muxer takes none once it has begun.
            self.ways = [(name, self._way(name)) for name in plan.others]
            parse.connect("pad-added", self._pad)

    def _way(self, name):
        """A queue that is linked to a pad of the muxer, or to nothing where text does not fit."""
        gst_module, _ = gst()
        kind = name.split("/")[0]
        queue = gst_module.ElementFactory.make("queue")
        for limit in ("max-size-bytes", "max-size-buffers", "max-size-time"):
            queue.set_property(limit, 0)
        self.pipeline.add(queue)
        template = "audio_%u" if kind == "audio" else "subtitle_%u"
        if not self.muxer.get_pad_template(template):
            raise ClusterError(f"{self.plan.source}: the output takes no {kind} ({name})")
        pad = self.muxer.request_pad_simple(template)
        if queue.get_static_pad("src").link(pad) != gst_module.PadLinkReturn.OK:
            raise ClusterError(f"{self.plan.source}: the output takes no {name}; use .mkv")
        return queue

    def _pad(self, _parse, pad):
        gst_module, _ = gst()
        caps = pad.get_current_caps() or pad.query_caps(None)
        facts = caps.get_structure(0)
        name = facts.get_name()
        way = next((i for i, (kind, _) in enumerate(self.ways) if kind == name), None)
        if way is None:
            drain = gst_module.ElementFactory.make("fakesink")
            drain.set_property("sync", False)
            drain.set_property("async", False)
            self.pipeline.add(drain)
            drain.sync_state_with_parent()
            pad.link(drain.get_static_pad("sink"))
            return
        _, queue = self.ways.pop(way)
        parser = PARSERS.get(name)
        if isinstance(parser, dict):
            parser = parser.get(facts.get_value("mpegversion"))
        sink = queue.get_static_pad("sink")
        if parser:
            parser = gst_module.ElementFactory.make(parser)
            self.pipeline.add(parser)
            parser.link(queue)
            parser.sync_state_with_parent()
            sink = parser.get_static_pad("sink")
        if pad.link(sink) != gst_module.PadLinkReturn.OK:
            told = gst_module.Structure.new_empty("does-not-fit")
            self.bus.post(gst_module.Message.new_application(queue, told))

    def play(self):
        """Begins."""
        gst_module, _ = gst()
        self.pipeline.set_state(gst_module.State.PLAYING)

    def failed(self):
        """Raises ClusterError where an element has told an error."""
        gst_module, _ = gst()
        kinds = gst_module.MessageType.ERROR | gst_module.MessageType.APPLICATION
        message = self.bus.pop_filtered(kinds)
        self._tell(message)

    def _tell(self, message):
        gst_module, _ = gst()
        if message is None:
            return
        if message.type == gst_module.MessageType.APPLICATION:
            raise ClusterError(f"{self.plan.source}: its sound or text does not fit the output")
        if message.type == gst_module.MessageType.ERROR:
            raise ClusterError(f"the output cannot be written: {message.parse_error()[0].message}")

    def wait(self):
        """Waits for the end of the file."""
        gst_module, _ = gst()
        kinds = (
            gst_module.MessageType.ERROR
            | gst_module.MessageType.EOS
            | gst_module.MessageType.APPLICATION
        )
        message = self.bus.timed_pop_filtered(int(PATIENCE_S) * SECOND, kinds)
        if message is None:
            raise ClusterError(f"the output is not written within {PATIENCE_S:.0f} s")
        self._tell(message)

    def close(self):
        """Stops."""
        gst_module, _ = gst()
        self.pipeline.set_state(gst_module.State.NULL)


def join(plan, files, codec_name, output):
    """Joins coded chunks into the output, which appears when it is whole.

    Raises ClusterError where chunks do not fit each other or the output cannot be written.
    """
    codec = CODECS[codec_name]
    muxer = muxer_of(output, codec_name)
    part = output + ".part"
    try:
        if codec.caps is None:
            joined = part if muxer is None else output + ".joined"
            try:
                join_nnv(files, joined)
                if muxer:
                    video = f'filesrc location={quoted(joined)} ! nnvparse name=v'
                    mux(plan, video, muxer, part, shift=plan.start)
            finally:
                if muxer and os.path.exists(joined):
                    os.remove(joined)
        else:
            video = f"appsrc name=v format=time block=true max-buffers=64 ! {codec.parser}"
            mux(plan, video, muxer, part, units=units(plan, files, codec))
        if muxer == "mp4mux":
            forget_times(part)
        os.replace(part, output)
    finally:
        if os.path.exists(part):
            os.remove(part)


def forget_times(path):
    """Sets the times of making in an MP4 file to 0, unknown: one result whenever it is made."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        boxes = [(0, end)]
        while boxes:
            at, end = boxes.pop()
            while at + 8 <= end:
                file.seek(at)
                size, kind = struct.unpack(">I4s", file.read(8))
                begin = at + 8
                if size == 1:
                    size = struct.unpack(">Q", file.read(8))[0]
                    begin += 8
                elif size == 0:
                    size = end - at
                if size < begin - at:
                    return
                if kind in (b"moov", b"trak", b"mdia"):
                    boxes.append((begin, at + size))
                elif kind in (b"mvhd", b"tkhd", b"mdhd"):
                    file.seek(begin)
                    # Version 1 has 64 bits for each of the two times.
                    length = 16 if file.read(1) == b"\x01" else 8
                    file.seek(begin + 4)
                    file.write(bytes(length))
                at += size


def units(plan, files, codec):
    """Access units of all chunks, with times in the film."""
    caps = None
    for chunk, path in zip(plan.chunks, files):
        begin = grid(plan.start, chunk.first, plan.fps)
        for buffer, here, pts, dts in access_units(path, codec):
            if caps is None:
                caps = here
            elif not caps.is_equal(here):
                raise ClusterError(
                    f"chunk {chunk.index} has other headers than chunk 0: {here.to_string()}; "
                    "one track cannot hold both"
                )
            yield buffer, caps, begin + pts, begin + dts


def mux(plan, video, muxer, out, units=None, shift=0):
    """Muxes; `units` go into the appsrc `v`, or all of `v` is shown `shift` ns later."""
    gst_module, _ = gst()
    writer = Writer(plan, video, muxer, out)
    try:
        source = writer.pipeline.get_by_name("v")
        if units is None:
            source.get_static_pad("src").set_offset(shift)
            writer.play()
            writer.wait()
            return
        begun = False
        for buffer, caps, pts, dts in units:
            if not begun:
                begun = True
                segment = gst_module.Segment()
                segment.init(gst_module.Format.TIME)
                segment.start = EARLY
                source.set_property("caps", caps)
                source.set_property("handle-segment-change", True)
                writer.play()
            buffer = buffer.copy_region(
                gst_module.BufferCopyFlags.FLAGS | gst_module.BufferCopyFlags.MEMORY,
                0,
                buffer.get_size(),
            )
            buffer.unset_flags(gst_module.BufferFlags.DISCONT)
            buffer.pts, buffer.dts = pts + EARLY, dts + EARLY
            buffer.duration = int(SECOND / plan.fps)
            sample = gst_module.Sample.new(buffer, caps, segment, None)
            if source.emit("push-sample", sample) != gst_module.FlowReturn.OK:
                writer.wait()
            writer.failed()
        source.emit("end-of-stream")
        writer.wait()
    finally:
        writer.close()
