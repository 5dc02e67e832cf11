#!/usr/bin/env python3
"""Lists links of pages to files that are not in the repository.

scripts/site.sh checks those of the site, which holds pages that are made, too.

scripts/check-links.py
"""

import pathlib
import re
import subprocess
import sys

# Examples are no links: blocks that are fenced or indented, and code within a line.
CODE = re.compile(r"```.*?```|^    .*$|`[^`\n]*`", re.M | re.S)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def main():
    command = ["git", "ls-files", "-co", "--exclude-standard", "*.md"]
    names = subprocess.run(command, capture_output=True, text=True, check=True)
    broken = []
    for name in names.stdout.splitlines():
        page = pathlib.Path(name)
        for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
            if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
                broken.append(f"{name}: {target}")
    print("\n".join(broken) or "no link is broken")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
