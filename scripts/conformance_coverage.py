#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Line coverage of the decoder's normative code, from a report of llvm-cov in LCOV's format.

    conformance_coverage.py [--lines] LCOV

Normative is what turns the bytes of a sound stream into samples: all of crates/nnv-format, of
crates/nnv-bitstream what parses units and headers, and crates/nnv-codec/src/decode. Left out are

* functions that no decoder of a sound stream calls: NOT_NORMATIVE names them, with the reason;
* lines that do nothing but report damage: a sound stream cannot reach them. They are known by what
  they say (DAMAGE), and may be as many as they are.

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
        "nnv-bitstream/src/frame.rs": "first_group key inter repeat omit_times set_group write "
        "to_payload",
        "nnv-bitstream/src/io.rs": "put_varint put_signed",
        "nnv-bitstream/src/limits.rs": "check_size",
        "nnv-bitstream/src/metadata.rs": "is_empty push to_payload to_unit write",
        "nnv-bitstream/src/sequence.rs": "to_payload display_width display_height latent_size",
        "nnv-bitstream/src/unit.rs": "write_unit code",
        "nnv-codec/src/decode/analysis.rs": "of prediction",
        "nnv-codec/src/decode/mod.rs": "set_analysis",
        "nnv-format/src/dequantise.rs": "dequantise",
        "nnv-format/src/entropy/coverage.rs": "cost walk",
        "nnv-format/src/entropy/range.rs": "shift_low len is_empty bit_cost round_up",
        "nnv-format/src/entropy/spent.rs": "new sum add spend bit_with bypass get put is_negative "
        "set_sign",
        "nnv-format/src/entropy/symbols.rs": "encode_z encode_y spent_y costs cost to_dense shape",
        "nnv-format/src/ink.rs": "clear encode remove",
        "nnv-format/src/motion/coding.rs": "encode_field field_bits field_bits_by_block "
        "is_whole_region",
        "nnv-format/src/picture.rs": "half sse sad from_raw read_raw is_equal difference psnr "
        "psnr_yuv quarter_luma same_size",
        "nnv-format/src/quantizer_map.rs": "encode to_bytes is_flat rescale values of_steps",
    },
    "for streams that are damaged or cut": {
        "nnv-codec/src/decode/mod.rs": "damaged_unit lost_frame strange_frame conceal drop_frame "
        "lose report take_loss goes_back",
        "nnv-format/src/references.rs": "nearest first_missing",
    },
    "of players: seeking, haste, what is told": {
        "nnv-bitstream/src/access_unit.rs": "set_pictures restart",
        "nnv-bitstream/src/checksums.rs": "multiply shifted after",
        "nnv-codec/src/decode/mod.rs": "fmt set_live set_conceal set_hurry set_gaps_expected "
        "cancel_handle set_sequence_header reset key_interval max_reorder skip_frame skip info",
        "nnv-codec/src/decode/models.rs": "source",
        "nnv-format/src/picture.rs": "fmt interleaved",
    },
}

# A line that makes an error, or part of one. Damage is refused in many words, none of which a sound
# stream reaches.
DAMAGE = re.compile(r"\bErr\(|Error::\w+|\.fail\(|Trouble::|return false|return Err")


def strip(line):
    """Without what may hold braces and is no code."""
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    line = re.sub(r"'(\\.|[^'\\])'", "' '", line)
    return line.split("//")[0]


def functions(text):
    """For each line, from 1 on, the names of the functions that it lies in."""
    depth, opened, waiting, result = 0, [], None, [()]
    for line in text.splitlines():
        code = strip(line)
        found = re.search(r"\bfn (\w+)", code)
        if found:
            waiting = found.group(1)
        here = [name for name, _ in opened] + ([waiting] if waiting else [])
        for letter in code:
            if letter == "{":
                if waiting:
                    opened.append((waiting, depth))
                    waiting = None
                depth += 1
            elif letter == "}":
                depth -= 1
                if opened and opened[-1][1] == depth:
                    opened.pop()
            elif letter == ";" and waiting:
                waiting = None  # declared, not defined
        result.append(tuple(here))
    return result


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

    unknown = set()
    for by_file in NOT_NORMATIVE.values():
        unknown |= {(f, name) for f, names in by_file.items() for name in names.split()}
    totals = [0, 0, 0]
    print(f"{'file':52} {'lines':>6} {'run':>6} {'share':>7} {'damage':>7}")
    missed = []
    for name, counts in sorted(report(options.lcov).items()):
        if not any(name == n or name.startswith(n + "/") for n in NORMATIVE):
            continue
        text = (ROOT / name).read_text()
        source, inside = text.splitlines(), functions(text)
        short = name.removeprefix("crates/")
        left_out = {
            word
            for by_file in NOT_NORMATIVE.values()
            for word in by_file.get(short, "").split()
        }
        unknown -= {(short, n) for names in inside for n in names}
        lines = run = damage = 0
        for number, count in sorted(counts.items()):
            if left_out & set(inside[number]):
                continue
            if not count and DAMAGE.search(source[number - 1]):
                damage += 1
                continue
            lines += 1
            run += count > 0
            if not count:
                missed.append(f"{name}:{number}: {source[number - 1].strip()}")
        for i, n in enumerate((lines, run, damage)):
            totals[i] += n
        if lines:
            print(f"{short:52} {lines:6} {run:6} {100 * run / lines:6.1f}% {damage:7}")
    if unknown:
        sys.exit(f"no such functions: {sorted(unknown)}")
    share = 100 * totals[1] / totals[0]
    print(f"{'all':52} {totals[0]:6} {totals[1]:6} {share:6.1f}% {totals[2]:7}")
    if options.lines:
        print("\nnever run:")
        print("\n".join(missed))
    if share < LEAST:
        sys.exit(f"below {LEAST} %")


if __name__ == "__main__":
    main()
