# SPDX-License-Identifier: MPL-2.0
"""Finished chunks in a folder: two files each, named by what decides their bytes."""

import hashlib
import json
import os
import re

from .errors import ClusterError
from .plan import file_hash, write_whole

# What a run leaves in its folder, which may hold files of others.
OWN = re.compile(r"([0-9a-f]{32}|plan-[^/]*)\.(json|nnv|mp4)(\.\d+\.part)?")


class Store:
    """A folder of finished chunks."""

    def __init__(self, folder):
        self.folder = folder
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as e:
            raise ClusterError(f"{folder}: {e.strerror}; name another with --work") from e

    def path(self, key, ending):
        """Where a chunk's stream is."""
        return os.path.join(self.folder, f"{key}.{ending}")

    def put(self, key, ending, record, data):
        """Keeps a chunk; the record comes last, so that a chunk with one is whole."""
        if hashlib.blake2b(data, digest_size=16).hexdigest() != record["hash"]:
            raise ClusterError(f"chunk {record['index']} was changed on its way; run again")
        if record["key"] != key:
            raise ClusterError(f"chunk {record['index']} is the answer to another job; run again")
        write_whole(self.path(key, ending), data)
        write_whole(self.path(key, "json"), json.dumps(record, indent=1).encode())

    def find(self, key, ending):
        """The record of a finished chunk, None where it is missing or its bytes are not its own."""
        try:
            with open(self.path(key, "json"), encoding="utf-8") as file:
                record = json.load(file)
            whole = file_hash(self.path(key, ending)) == record["hash"] and record["key"] == key
            return record if whole else None
        except (ClusterError, OSError, ValueError, KeyError, TypeError):
            return None

    def clear(self):
        """Removes finished chunks and plans, and the folder if nothing else is in it."""
        for name in os.listdir(self.folder):
            if OWN.fullmatch(name):
                os.remove(os.path.join(self.folder, name))
        try:
            os.rmdir(self.folder)
        except OSError:
            pass
