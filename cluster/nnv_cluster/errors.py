# SPDX-License-Identifier: MPL-2.0
"""Errors that a user can do something about."""


class ClusterError(Exception):
    """One line that says what is wrong and what to do; the program prints it and ends with 1."""


class Interrupted(ClusterError):
    """A chunk's process ended by a signal: nothing is wrong with the chunk, it is tried again."""
