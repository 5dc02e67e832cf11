# SPDX-License-Identifier: MPL-2.0
"""A second decoder of NNV streams, written from docs/bitstream.md alone.

Sections named in the modules are those of that page; "motion" is docs/bitstream-motion.md.
"""
