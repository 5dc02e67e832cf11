# SPDX-License-Identifier: MPL-2.0
"""What `--trace` prints: the syntax elements, one by one.

Places in brackets: `z`: channel, row, column. `y`: channel, row of the band, column and, of
symbols, scale index; of group flags: group, row, first column; of run flags: channel, row,
first column. `map`, `ink`: row, column. `still`: past, neighbours, row, column. `side`: context
(of vectors: spread), column and row of block or cell; of indices only these.
"""

from .decoder import describe


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
        print(f"# {describe(header)}", file=self.out)

    def sequence(self, sequence):
        print(f"# {sequence}", file=self.out)
