#!/usr/bin/env python3
"""Called by meson.build: run cargo and put the plugin and the program `nnv` where meson expects
them.

meson-cargo.py CARGO SOURCE_ROOT TARGET_DIR PROFILE FEATURES LIBRARY PROGRAM
"""

import shutil
import subprocess
import sys
from pathlib import Path

cargo, root, target, profile, features, *outputs = sys.argv[1:]
folder = Path(target) / ("debug" if profile == "dev" else profile)
for what, output in zip((["--lib"], ["-p", "nnv-tools"]), outputs, strict=True):
    command = [cargo, "build", "--locked", *what, f"--manifest-path={root}/Cargo.toml"]
    command += [f"--target-dir={target}", f"--profile={profile}"]
    if features:
        command.append(f"--features={features}")
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)
    shutil.copy2(folder / Path(output).name, output)
