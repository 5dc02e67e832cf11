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
# One call for both: apart, their crates in common would be built twice, with other features.
command = [cargo, "build", "--locked", "--lib", "--bin", "nnv"]
command += ["-p", "gst-plugin-nnv", "-p", "nnv-tools"]
command += [f"--manifest-path={root}/Cargo.toml", f"--target-dir={target}", f"--profile={profile}"]
if features:
    command.append(f"--features={features}")
status = subprocess.run(command, check=False).returncode
if status == 0:
    folder = Path(target) / ("debug" if profile == "dev" else profile)
    for output in outputs:
        shutil.copy2(folder / Path(output).name, output)
sys.exit(status)
