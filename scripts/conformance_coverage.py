#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Line coverage of the decoder's normative code, from a report of llvm-cov in LCOV's format.

    conformance_coverage.py [--lines] LCOV

Normative is what turns the bytes of a sound stream into samples: all of crates/nnv-format, of
crates/nnv-bitstream what parses units and headers, and crates/nnv-codec/src/decode. Left out are

* functions that no decoder of a sound stream calls: NOT_NORMATIVE names them, with the reason.
  `Type::name` is one of a type alone, `Type::*` all that it has;
* lines that were not run and report damage, which a sound stream cannot have: the whole of an
  expression that makes an error or conceals one (DAMAGE), and a block that ends in one.

What is left out is counted by reason; --lines also lists each line that was left out for damage.
Exit code 1 below 95 %.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST = 95.0

NORMATIVE = [
    "crates/nnv-format/src",
    "crates/nnv-codec/src/decode",
    *(
        f"crates/nnv-bitstream/src/{name}.rs"
        for name in ("access_unit", "checksums", "frame", "io", "limits", "metadata")
    ),
    "crates/nnv-bitstream/src/sequence.rs",
    "crates/nnv-bitstream/src/stream_info.rs",
    "crates/nnv-bitstream/src/unit.rs",
]

# By reason, then by file (below crates), the functions.
NOT_NORMATIVE = {
    "of the encoder, of tools and of measurements": {
        "nnv-bitstream/src/access_unit.rs": "scan_access_unit",
        "nnv-bitstream/src/frame.rs": "first_group key inter repeat omit_times set_group write "
        "to_payload",
        "nnv-bitstream/src/io.rs": "put_varint put_signed",
        "nnv-bitstream/src/limits.rs": "check_size",
        "nnv-bitstream/src/metadata.rs": "is_empty push to_payload to_unit write kind items "
        "default Text::new",
        "nnv-bitstream/src/sequence.rs": "to_payload display_width display_height latent_size "
        "SequenceHeader::new default state_cost",
        "nnv-bitstream/src/stream_info.rs": "new rate validate",
        "nnv-bitstream/src/unit.rs": "write_unit code",
        "nnv-codec/src/decode/analysis.rs": "of prediction",
        "nnv-codec/src/decode/mod.rs": "set_analysis",
        "nnv-codec/src/decode/still.rs": "share",
        "nnv-format/src/dequantise.rs": "dequantise",
        "nnv-format/src/entropy/band.rs": "i16::*",
        "nnv-format/src/entropy/coverage.rs": "cost walk CoveragePlane::get",
        "nnv-format/src/entropy/mix.rs": "p1",
        "nnv-format/src/entropy/range.rs": "Encoder::* BitCounter::* BinaryCoder::overrun bit_cost "
        "round_up Decoder::bit",
        "nnv-format/src/entropy/spent.rs": "new sum add spend bit_with bypass get put is_negative "
        "set_sign",
        "nnv-format/src/entropy/symbols.rs": "encode_z encode_y spent_y costs cost to_dense shape "
        "y_shape z_shape streams",
        "nnv-format/src/ink.rs": "clear encode remove cells",
        "nnv-format/src/motion/coding.rs": "encode_field field_bits field_bits_by_block "
        "is_whole_region",
        "nnv-format/src/motion/compensate.rs": "plane",
        "nnv-format/src/motion/field.rs": "cells",
        "nnv-format/src/picture.rs": "half sse sad from_raw read_raw is_equal difference psnr "
        "psnr_yuv quarter_luma same_size visible_width visible_height visible_row luma plane_mut",
        "nnv-format/src/quantizer_map.rs": "encode to_bytes is_flat rescale values of_steps "
        "QuantizerMap::new",
        "nnv-format/src/still.rs": "StillMap::new width count to_bytes mask_scales keep_prediction",
        "nnv-format/src/entropy/tables.rs": "is_empty",
        "nnv-format/src/tables.rs": "NetworkSet::of",
    },
    "run by the compiler": {
        "nnv-format/src/entropy/mix.rs": "interpolate",
        "nnv-format/src/entropy/range.rs": "trusted",
    },
    "for streams that are damaged or cut": {
        "nnv-codec/src/decode/mod.rs": "damaged_unit lost_frame strange_frame conceal drop_frame "
        "lose report take_loss goes_back came_before",
        "nnv-format/src/references.rs": "nearest first_missing",
    },
    "of players: seeking, haste, what is told": {
        "nnv-bitstream/src/access_unit.rs": "set_pictures restart",
        "nnv-bitstream/src/checksums.rs": "multiply shifted after",
        "nnv-codec/src/decode/mod.rs": "fmt set_live set_conceal set_hurry set_gaps_expected "
        "cancel_handle set_sequence_header reset key_interval max_reorder skip_frame skips skip "
        "info Decoder::model",
        "nnv-codec/src/decode/models.rs": "source",
        "nnv-format/src/picture.rs": "fmt interleaved",
        "nnv-format/src/references.rs": "len is_empty",
    },
}

# A line that makes an error, or part of one. Damage is refused in many words, none of which a sound
# stream reaches.
DAMAGE = re.compile(
    r"\bErr\(|Error::\w+|\.fail\(|Trouble::|return false|return Err|\bbad\(|^\s*\)\?;$"
    # What a decoder does about a frame that is lost, damaged or left out: see NOT_NORMATIVE.
    r"|self\.(drop_frame|lost_frame|strange_frame|skip_frame|skip|conceal|lose|report)\("
    r"|LastShown::(Concealed|Skipped)|concealed = true"
)
# What follows it: control goes on elsewhere.
JUMP = re.compile(r"^\s*(continue|return Ok\(\(\)\)|return true);$")


def strip(line):
    """Without what may hold braces and is no code."""
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    line = re.sub(r"'(\\.|[^'\\])'", "' '", line)
    return line.split("//")[0]


IMPL = re.compile(r"^\s*(?:unsafe )?(?:impl|(?:pub(?:\([a-z]+\))? )?trait)\b(.*)")


def subject(rest):
    """The type of `impl … for Type`, or the trait of `trait Name`."""
    while rest.lstrip().startswith("<"):  # generic parameters
        rest, depth = rest.lstrip(), 0
        for i, letter in enumerate(rest):
            depth += (letter == "<") - (letter == ">" and rest[i - 1] != "-")
            if not depth:
                rest = rest[i + 1 :]
                break
        else:
            break
    name = re.search(r"\w+", rest.split(" for ")[-1].split("::")[-1])
    return name and name.group()


def functions(text):
    """For each line, from 1 on, the functions that it lies in, each as `name`, and where it is of a
    type as `Type::name` and `Type::*`, too."""
    depth, opened, waiting, result = 0, [], None, [()]
    for line in text.splitlines():
        code = strip(line)
        found = re.search(r"\bfn (\w+)", code)
        of_type = IMPL.match(code)
        if found:
            names = {found.group(1)}
            types = [name for kind, name, _ in opened if kind == "type"]
            if types:
                names |= {f"{types[-1]}::{found.group(1)}", f"{types[-1]}::*"}
            waiting = ("function", names)
        elif of_type:
            waiting = ("type", subject(of_type.group(1)))
        here = set()
        for kind, names, *_ in [*opened, *([waiting] if waiting else [])]:
            here |= names if kind == "function" else set()
        # Lengths of arrays stand behind semicolons of their own.
        for letter in re.sub(r"\[[^\[\]]*;[^\[\]]*\]", "[]", code):
            if letter == "{":
                if waiting:
                    opened.append((*waiting, depth))
                    waiting = None
                depth += 1
            elif letter == "}":
                depth -= 1
                if opened and opened[-1][2] == depth:
                    opened.pop()
            elif letter == ";" and waiting:
                waiting = None  # declared, not defined
        result.append(tuple(here))
    return result


PAIRS = {")": "(", "]": "[", "}": "{"}


def blocks(text):
    """Expressions in brackets over several lines: (kind, first line, last line), inner first."""
    opened, found = [], []
    for number, line in enumerate(text.splitlines(), 1):
        for letter in strip(line):
            if letter in PAIRS.values():
                opened.append((letter, number))
            elif letter in PAIRS and opened:
                kind, first = opened.pop()
                if first < number:
                    found.append((kind, first, number))
    return found


def damage_lines(text, counts):
    """Lines that were not run and only report damage."""
    source = text.splitlines()
    idle = {number for number, count in counts.items() if not count}
    found = {number for number in idle if DAMAGE.search(source[number - 1])}
    spans = blocks(text)
    # The rest of an expression that begins with an error.
    for kind, first, last in spans:
        if kind != "{" and first in found:
            found |= idle.intersection(range(first, last + 1))
    # A block that was not entered and whose last statement is such an expression.
    for kind, first, last in spans:
        inside = [n for n in counts if first < n <= last]
        if kind != "{" or not inside or any(counts[n] for n in inside):
            continue
        if re.search(r"\bfn \w+", strip(source[first - 1])):
            continue
        statement = last - 1
        if JUMP.match(source[statement - 1]):
            statement -= 1
        for _, begin, end in spans:
            if first < begin and end == last - 1:
                statement = min(statement, begin)
        if statement in found or DAMAGE.search(source[statement - 1]):
            found |= idle.intersection(range(first + 1, last + 1))
    return found


def report(path):
    """Counts by line, by file below the repository."""
    files, lines = {}, None
    for line in path.read_text().splitlines():
        if line.startswith("SF:"):
            name = Path(line[3:])
            inside = name.is_relative_to(ROOT)
            lines = files.setdefault(str(name.relative_to(ROOT)), {}) if inside else {}
        elif line.startswith("DA:"):
            number, count = line[3:].split(",")[:2]
            lines[int(number)] = lines.get(int(number), 0) + int(count)
    return files


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", action="store_true")
    parser.add_argument("lcov", type=Path)
    options = parser.parse_args()

    unknown = {
        (name, function)
        for by_file in NOT_NORMATIVE.values()
        for name, functions_ in by_file.items()
        for function in functions_.split()
    }
    totals, reasons, missed, left = [0, 0, 0], dict.fromkeys(NOT_NORMATIVE, 0), [], []
    print(f"{'file':52} {'lines':>6} {'run':>6} {'share':>7} {'damage':>7}")
    for name, counts in sorted(report(options.lcov).items()):
        if not any(name == n or name.startswith(n + "/") for n in NORMATIVE):
            continue
        text = (ROOT / name).read_text()
        source, inside = text.splitlines(), functions(text)
        short = name.removeprefix("crates/")
        unknown -= {(short, n) for names in inside for n in names}
        damage = damage_lines(text, counts)
        figures = [0, 0, 0]
        for number, count in sorted(counts.items()):
            told = f"{name}:{number}: {source[number - 1].strip()}"
            reason = next(
                (
                    reason
                    for reason, by_file in NOT_NORMATIVE.items()
                    if set(by_file.get(short, "").split()) & set(inside[number])
                ),
                None,
            )
            if reason:
                reasons[reason] += 1
            elif number in damage:
                figures[2] += 1
                left.append(told)
            else:
                figures[0] += 1
                figures[1] += count > 0
                if not count:
                    missed.append(told)
        totals = [a + b for a, b in zip(totals, figures)]
        if figures[0]:
            share = 100 * figures[1] / figures[0]
            print(f"{short:52} {figures[0]:6} {figures[1]:6} {share:6.1f}% {figures[2]:7}")
    if unknown:
        sys.exit(f"no such functions: {sorted(unknown)}")
    share = 100 * totals[1] / totals[0]
    print(f"{'all':52} {totals[0]:6} {totals[1]:6} {share:6.1f}% {totals[2]:7}")
    print("\nlines left out, by reason:")
    for reason, count in reasons.items():
        print(f"{count:6} {reason}: functions named in this script")
    print(f"{totals[2]:6} not run, and report damage")
    if options.lines:
        print("\nleft out for damage:", *left, "\nnever run:", *missed, sep="\n")
    if share < LEAST:
        sys.exit(f"below {LEAST} %")


if __name__ == "__main__":
    main()
