#!/usr/bin/env python3
"""Writes the page of the elements from what gst-inspect-1.0 says of them.

    docs/site/elements.py > elements.md

Needs the plugin on GST_PLUGIN_PATH (source scripts/env.sh).
"""

import re
import subprocess
import sys

# Properties that every element of GStreamer has.
BASE = {
    "name",
    "parent",
    "qos",
    "max-errors",
    "min-force-key-unit-interval",
    "discard-corrupted-frames",
    "automatic-request-sync-points",
    "automatic-request-sync-point-flags",
    "disable-passthrough",
}


def inspect(*names):
    command = ["gst-inspect-1.0", "--no-colors", *names]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        why = run.stderr.strip() or "not found"
        sys.exit(
            f"{' '.join(command)}: {why}; is the plugin built, and was scripts/env.sh sourced?"
        )
    return run.stdout


def field(text, name):
    found = re.search(rf"^\s+{name}\s{{2,}}(.+)$", text, re.M)
    return found.group(1).strip() if found else ""


def cell(text):
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def properties(text):
    """(name, blurb, rest) of each property."""
    _, _, block = text.partition("Element Properties:")
    block = re.split(r"\n(?:Element (?:Signals|Actions)|Children|Presets):?", block)[0]
    for part in re.split(r"\n(?=  [a-z][a-z0-9-]*\s*: )", block):
        head = re.match(r"\s*([a-z][a-z0-9-]*)\s*: (.*)", part)
        if not head:
            continue
        name, blurb = head.groups()
        lines = part.strip().splitlines()[1:]
        # Values of enumerations and flags are indented further.
        lines = [line.strip() for line in lines if line.strip()]
        values = [line for line in lines if re.match(r"\(\w+\): \S+ +- ", line)]
        facts = [line for line in lines if line not in values]
        yield name, blurb, facts, values


def when(flags):
    if "writable" not in flags:
        return "read only"
    if "PLAYING" in flags:
        return "while playing"
    return "stopped" if "READY" in flags or "NULL" in flags else "any time"


def main():
    listing = inspect("nnv")
    names = re.findall(r"^\s{2}(\w+): ", listing.partition("\n\n")[2] or listing, re.M)
    names = [n for n in dict.fromkeys(names) if not n.startswith("video")]
    if not names:
        sys.exit("gst-inspect-1.0 nnv names no element")
    print(
        "# Elements\n\nMade from `gst-inspect-1.0`, which has the same and the pads besides. "
        "[The report of the demo clip](report.html) is a page of `nnv inspect`.\n"
    )
    for name in names:
        text = inspect(name)
        print(f"- [{name}](#{name}): {cell(field(text, 'Description'))}")
    for name in names:
        text = inspect(name)
        print(f"\n## {name}\n\n{cell(field(text, 'Description'))}. Rank {field(text, 'Rank')}.\n")
        rows = [row for row in properties(text) if row[0] not in BASE]
        if not rows:
            print("It has no properties of its own.")
            continue
        print("| property | meaning | type, range, default | when |\n|---|---|---|---|")
        for prop, blurb, facts, values in rows:
            flags = next((f for f in facts if f.startswith("flags:")), "")
            kind = "; ".join(f for f in facts if not f.startswith("flags:"))
            names_of = [re.match(r"\(\w+\): (\S+)", value).group(1) for value in values]
            if names_of:
                kind += "; " + ", ".join(f"`{value}`" for value in names_of)
            print(f"| `{prop}` | {cell(blurb)} | {cell(kind)} | {when(flags)} |")


if __name__ == "__main__":
    main()
