// SPDX-License-Identifier: MPL-2.0
/** `TimeRanges`, which pages cannot make themselves. */
export class PlainTimeRanges implements TimeRanges {
  readonly #ranges: readonly (readonly [number, number])[];

  constructor(ranges: readonly (readonly [number, number])[]) {
    this.#ranges = ranges;
  }

  get length(): number {
    return this.#ranges.length;
  }

  start(index: number): number {
    return this.#at(index)[0];
  }

  end(index: number): number {
    return this.#at(index)[1];
  }

  #at(index: number): readonly [number, number] {
    const range = this.#ranges[index];
    if (!range) throw new DOMException(`There is no range ${index}.`, 'IndexSizeError');
    return range;
  }
}
