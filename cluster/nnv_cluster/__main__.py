# SPDX-License-Identifier: MPL-2.0
"""`python -m nnv_cluster`."""

import sys

from .cli import main

sys.exit(main())
