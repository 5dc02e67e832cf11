#!/usr/bin/env python3
"""Called by meson.build: run cargo and put the library where meson expects it.

meson-cargo.py CARGO SOURCE_ROOT TARGET_DIR PROFILE FEATURES OUTPUT
"""

import shutil
import subprocess
import sys
from pathlib import Path

cargo, root, target, profile, features, output = sys.argv[1:]
command = [
    cargo,
    "build",
    "--locked",
    "--lib",
    f"--manifest-path={root}/Cargo.toml",
    f"--target-dir={target}",
    f"--profile={profile}",
]
if features:
    command.append(f"--features={features}")
status = subprocess.run(command, check=False).returncode
if status == 0:
    folder = "debug" if profile == "dev" else profile
    shutil.copy2(Path(target) / folder / Path(output).name, output)
sys.exit(status)
