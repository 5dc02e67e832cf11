# SPDX-License-Identifier: MPL-2.0
"""What several tests need."""

from pathlib import Path

import pytest
from nnvref.bundle import Bundles


@pytest.fixture(scope="session")
def bundles():
    return Bundles(Path(__file__).resolve().parents[2] / "models")
