#!/usr/bin/env python3
"""Lists lines of code or comment that are longer than 100 columns.

Shell and meson are left out: their messages cannot be broken.

scripts/check-lines.py
"""

import subprocess
import sys

LIMIT = 100
SUFFIXES = (".rs", ".py", ".cpp")


def main():
    names = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)
    long = []
    for name in names.stdout.splitlines():
        if not name.endswith(SUFFIXES):
            continue
        with open(name, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if len(line.rstrip("\n")) > LIMIT:
                    long.append(f"{name}:{number}: {len(line) - 1} columns")
    print("\n".join(long) or f"no line is longer than {LIMIT} columns")
    return bool(long)


if __name__ == "__main__":
    sys.exit(main())
