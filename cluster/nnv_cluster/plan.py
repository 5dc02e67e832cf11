# SPDX-License-Identifier: MPL-2.0
"""The plan: what the source is, and which frames make each chunk.

It is made once, from the source alone, and read by every task: the same source and limits give the
same plan, whatever machines there are.
"""

import hashlib
import json
import os
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from statistics import median

from .errors import ClusterError
from .media import SECOND, Pictures, grid, picture_hash

VERSION = 1
# A picture is a cut where its difference to the last one is this large (of 255) …
CUT_DIFFERENCE = 10.0
# … and so many times that of the pictures around it.
CUT_RATIO = 3.0
# Pictures on each side of one that the ratio looks at.
CUT_WINDOW = 6
# Sound may end so much later than the pictures: encoders of sound pad their last block.
SOUND_SLACK = SECOND


@dataclass
class Chunk:
    """A range of frames that is coded by itself."""

    index: int
    #: Number of its first frame in the source.
    first: int
    count: int
    #: Stream time of its first frame in the source, in ns.
    time: int
    #: Hash of its decoded pictures, hexadecimal: what a task must see before it codes.
    pictures: str
    #: Mean difference to the last picture and mean detail, of 255: for the model of rates.
    motion: float
    detail: float


@dataclass
class Plan:
    """A source and its chunks."""

    source: str
    size: int
    #: BLAKE2b of the file, hexadecimal.
    hash: str
    #: Of the decoded pictures.
    caps: str
    width: int
    height: int
    #: Frames a second, numerator and denominator.
    rate: tuple
    frames: int
    #: Stream time of the first picture, in ns.
    start: int
    #: Names of the types of sound and text, in the order of the source.
    others: list
    chunks: list = field(default_factory=list)
    version: int = VERSION

    @property
    def fps(self):
        """Frames a second, exact."""
        return Fraction(*self.rate)

    @property
    def seconds(self):
        """Length of the pictures."""
        return float(self.frames / self.fps)

    def write(self, path):
        """Writes the plan as JSON; it appears whole or not at all."""
        write_whole(path, json.dumps(asdict(self), indent=1).encode())

    @staticmethod
    def read(path):
        """Reads a plan.

        Raises ClusterError where it is none, or of another version.
        """
        try:
            with open(path, encoding="utf-8") as file:
                values = json.load(file)
            if values.get("version") != VERSION:
                raise ClusterError(f"{path}: a plan of another version; make it anew")
            values["chunks"] = [Chunk(**chunk) for chunk in values["chunks"]]
            values["rate"] = tuple(values["rate"])
            return Plan(**values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            raise ClusterError(f"{path}: no plan ({e}); make one with nnv-cluster chunks") from e


def write_whole(path, data):
    """Writes a file that appears under its name only when it is whole."""
    part = f"{path}.{os.getpid()}.part"
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def file_hash(path):
    """BLAKE2b of a file, hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as e:
        raise ClusterError(f"{path}: {e.strerror}") from e
    return digest.hexdigest()


def luma(frame, ten_bits):
    """Every eighth sample of every eighth row of the luma, of 255."""
    import numpy

    _, _, width, height = frame.planes[0]
    rows = []
    for y, row in enumerate(frame.rows()):
        if y >= height:
            break
        if y % 8 == 4 or height < 5:
            samples = numpy.frombuffer(row, numpy.uint16 if ten_bits else numpy.uint8)
            rows.append(samples[::8].astype(numpy.float32))
    result = numpy.stack(rows)
    return result / 4 if ten_bits else result


def shots(differences):
    """Numbers of frames that begin a shot, from the difference of each frame to the last one."""
    found = []
    for i in range(1, len(differences)):
        around = differences[max(1, i - CUT_WINDOW) : i] + differences[i + 1 : i + 1 + CUT_WINDOW]
        usual = median(around) if around else 0.0
        if differences[i] >= CUT_DIFFERENCE and differences[i] > CUT_RATIO * usual:
            found.append(i)
    return found


def cut(frames, cuts, differences, shortest, longest):
    """First frames of the chunks.

    A chunk begins with a shot where one lies between `shortest` and `longest` frames after the last
    beginning, else at the largest change in the second half of that. No chunk is shorter than
    `shortest`, unless all of the source is.
    """
    begins, cuts = [0], set(cuts)
    while True:
        low, high = begins[-1] + shortest, begins[-1] + longest
        # What remains behind the cut must make a chunk, too.
        last = frames - shortest
        if last < low:
            return begins
        shot = next((at for at in range(low, min(high, last) + 1) if at in cuts), None)
        if shot is None:
            if frames <= high:
                return begins
            middle = min(last, max(low, begins[-1] + longest // 2))
            choice = range(middle, min(high, last) + 1)
            shot = max(choice, key=lambda at: (differences[at], at))
        begins.append(shot)


def make_plan(path, shortest_s=2.0, longest_s=10.0, damaged=False, long_sound=False, told=None):
    """Reads a source once and cuts it.

    `damaged`: pictures that the decoder flags are coded as it shows them; `long_sound`: sound may
    go on behind the pictures. `told(frames)` is called as frames pass. Raises ClusterError, with
    the place in the source where one thing is wrong.
    """
    import numpy

    if not 0 < shortest_s <= longest_s / 2:
        raise ClusterError("a chunk's greatest length must be twice its least one or more")
    path = os.path.abspath(path)
    hashes, times, differences, details, bad = [], [], [], [], []
    with Pictures(path, follow_others=True) as pictures:
        last, ten_bits = None, False
        for frame in pictures:
            if last is None:
                ten_bits = "10LE" in pictures.caps.get_structure(0).get_string("format")
            small = luma(frame, ten_bits)
            difference = float(numpy.abs(small - last).mean()) if last is not None else 0.0
            detail = float(numpy.abs(numpy.diff(small, axis=1)).mean()) if small.shape[1] > 1 else 0
            differences.append(round(difference, 4))
            details.append(round(float(detail), 4))
            hashes.append(picture_hash(frame))
            if frame.corrupted:
                bad.append(len(times))
            times.append(frame.time)
            last = small
            if told:
                told(len(times))
        caps, info = pictures.caps, pictures.info
        warnings, others, ends = pictures.warnings, pictures.others, pictures.ends
    if not times:
        raise ClusterError(f"{path}: no picture in it: the source is empty or damaged")
    if info.fps_n <= 0:
        raise ClusterError(
            f"{path}: variable frame rate (the source names none); make it constant first, "
            "with videorate"
        )
    rate = Fraction(info.fps_n, info.fps_d)
    shortest = max(1, round(shortest_s * rate))
    longest = max(2 * shortest, int(longest_s * rate))
    begins = cut(len(times), shots(differences), differences, shortest, longest)

    def place(frame):
        """A frame, its time and its chunk, for people."""
        index = bisect_right(begins, frame) - 1
        end = begins[index + 1] if index + 1 < len(begins) else len(times)
        at = (times[frame] - times[0]) / SECOND
        return f"frame {frame} ({at:.2f} s, chunk {index}: frames {begins[index]} to {end - 1})"

    if not damaged and (bad or warnings):
        where = f"at {place(bad[0])}" if bad else "where its decoder does not say"
        why = f" ({warnings[0]})" if warnings else ""
        raise ClusterError(
            f"{path}: the source is damaged {where}{why}; give --damaged to code what is shown"
        )
    # Half a frame off the grid is another grid; containers round to ms at worst.
    slack = SECOND / rate / 2
    off = next((i for i, t in enumerate(times) if abs(t - grid(times[0], i, rate)) >= slack), None)
    if off is not None:
        late = (times[off] - grid(times[0], off, rate)) * rate / SECOND
        lost = f"{round(late)} frames are missing" if abs(late - round(late)) < 0.1 else "it is off"
        raise ClusterError(
            f"{path}: variable frame rate, or damage: {lost} before {place(off)}; "
            "make the rate constant first, with videorate"
        )
    seconds = len(times) / rate
    end = times[0] + int(seconds * SECOND)
    for key, sound in ends.items():
        name = others[key][0]
        if name.startswith("audio") and sound > end + SOUND_SLACK and not long_sound:
            raise ClusterError(
                f"{path}: sound is longer than pictures ({sound / SECOND:.2f} s, "
                f"{end / SECOND:.2f} s); give --long-sound where that is meant"
            )
    chunks = []
    for index, first in enumerate(begins):
        behind = begins[index + 1] if index + 1 < len(begins) else len(times)
        digest = hashlib.blake2b(b"".join(hashes[first:behind]), digest_size=16)
        inner = differences[first + 1 : behind] or [0.0]
        chunks.append(
            Chunk(
                index=index,
                first=first,
                count=behind - first,
                time=times[first],
                pictures=digest.hexdigest(),
                motion=round(sum(inner) / len(inner), 4),
                detail=round(sum(details[first:behind]) / (behind - first), 4),
            )
        )
    return Plan(
        source=path,
        size=os.path.getsize(path),
        hash=file_hash(path),
        caps=caps.to_string(),
        width=info.width,
        height=info.height,
        rate=(rate.numerator, rate.denominator),
        frames=len(times),
        start=times[0],
        others=[name for name, _ in others],
        chunks=chunks,
    )
