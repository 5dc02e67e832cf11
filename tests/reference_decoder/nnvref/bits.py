# SPDX-License-Identifier: MPL-2.0
"""Section 1: integers of headers, CRC-32C; and the one error that all bad bytes give."""


class Damage(Exception):
    """Bytes that no conforming stream holds."""


class Unsupported(Exception):
    """A stream that this decoder must refuse by name: a later version, another bundle."""


def _crc_table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            # 0x1EDC6F41 with its bits reversed.
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_CRC_TABLE = _crc_table()


def crc32c(*pieces):
    """CRC-32C over the bytes of all pieces, one behind the other."""
    crc, table = 0xFFFFFFFF, _CRC_TABLE
    for piece in pieces:
        for byte in bytes(piece):
            crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class ByteReader:
    """Reads a header. Each read names its element, for the trace.

    `offset` is the place of the first byte in the file.
    """

    def __init__(self, data, offset=0, trace=None, path=""):
        self.data, self.pos, self.offset = bytes(data), 0, offset
        self.trace, self.path = trace, path

    def _say(self, start, name, value):
        if self.trace:
            self.trace.element(8 * (self.offset + start), self.path, name, (), value)

    def _take(self, count, name):
        if self.pos + count > len(self.data):
            raise Damage(f"{self.path}: ends within {name}")
        self.pos += count
        return self.data[self.pos - count : self.pos]

    def bytes(self, count, name):
        value = self._take(count, name)
        self._say(self.pos - count, name, value)
        return value

    def _unsigned(self, size, name):
        value = int.from_bytes(self._take(size, name), "big")
        self._say(self.pos - size, name, value)
        return value

    def u8(self, name):
        return self._unsigned(1, name)

    def u16(self, name):
        return self._unsigned(2, name)

    def u32(self, name):
        return self._unsigned(4, name)

    def _varint(self, name):
        value, shift = 0, 0
        while True:
            byte = self._take(1, name)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if (byte == 0 and shift > 0) or value >= 1 << 64:
            raise Damage(f"{self.path}: {name} is no varint in its shortest form below 2^64")
        return value

    def varint(self, name, lowest=0, highest=(1 << 64) - 1):
        start = self.pos
        value = self._varint(name)
        self._say(start, name, value)
        if not lowest <= value <= highest:
            raise Damage(f"{self.path}: {name} is {value}, not {lowest} to {highest}")
        return value

    def svarint(self, name):
        start = self.pos
        value = self._varint(name)
        value = -(value + 1) // 2 if value & 1 else value // 2
        self._say(start, name, value)
        return value

    def rest(self):
        return self.data[self.pos :]
