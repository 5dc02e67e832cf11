# SPDX-License-Identifier: MPL-2.0
"""Who wants to see the syntax elements, one by one."""


class Printer:
    """A line for each element: bits from the file's beginning, part, element, place, value.

    Elements of entropy-coded strings begin between bits: two places are given there.
    """

    def __init__(self, out):
        self.out = out

    def element(self, position, path, name, index, value):
        place = f"[{', '.join(map(str, index))}]" if index else ""
        if isinstance(value, bytes):
            value = value.hex()
        at = f"{position:.2f}" if isinstance(position, float) else f"{position}.00"
        print(f"{at:>14}  {path:<8} {name}{place} = {value}", file=self.out)

    def frame(self, header):
        from .decoder import describe

        print(f"# {describe(header)}", file=self.out)
