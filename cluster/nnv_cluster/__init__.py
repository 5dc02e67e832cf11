# SPDX-License-Identifier: MPL-2.0
"""Codes films in chunks on many machines, with one result whatever their number."""

__version__ = "0.1.0"
