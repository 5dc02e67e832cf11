// SPDX-License-Identifier: MPL-2.0
/** Reads the time that `server/picture.mjs` draws into the top rows of live pictures. */
const CELL = 8;
const BITS = 40;

/** Milliseconds, modulo 2^32, when the picture was drawn; `undefined` if it has no clock. */
export function drawnTime(luma: Uint8Array, stride: number): number | undefined {
  if (stride < BITS * CELL) return undefined;
  let value = 0;
  let check = 0;
  for (let i = 0; i < BITS; i++) {
    const bit = (luma[CELL * stride + i * CELL + CELL / 2] ?? 0) > 125 ? 1 : 0;
    if (i < 32) value = ((value << 1) | bit) >>> 0;
    else check = (check << 1) | bit;
  }
  const wanted = (value ^ (value >>> 8) ^ (value >>> 16) ^ (value >>> 24) ^ 0xa5) & 0xff;
  return check === wanted ? value : undefined;
}

/** Milliseconds from when the picture was drawn to now, on one machine's clock. */
export function age(luma: Uint8Array, stride: number): number | undefined {
  const drawn = drawnTime(luma, stride);
  if (drawn === undefined) return undefined;
  return (Date.now() - drawn) % 2 ** 32;
}
