// SPDX-License-Identifier: MPL-2.0
/**
 * A drawn film in I420: a slope that drifts, a wheel, a ball; and in the top rows the time, so that
 * whoever sees a picture can tell how old it is.
 */
export const WIDTH = 320;
export const HEIGHT = 180;
export const RATE = 25;
export const FRAME_BYTES = (WIDTH * HEIGHT * 3) / 2;

/** The time is drawn as this many squares, 32 bits and 8 to check them, most significant first. */
export const CLOCK_BITS = 40;
export const CLOCK_CELL = 8;

/** Milliseconds modulo 2^32 and a check, as bits. `src/clock.ts` reads them. */
function clockBits(milliseconds) {
  const value = (milliseconds % 2 ** 32) >>> 0;
  const check = (value ^ (value >>> 8) ^ (value >>> 16) ^ (value >>> 24) ^ 0xa5) & 0xff;
  const bits = [];
  for (let i = 31; i >= 0; i--) bits.push((value >>> i) & 1);
  for (let i = 7; i >= 0; i--) bits.push((check >>> i) & 1);
  return bits;
}

/** Frame `n` of the film. `milliseconds`: what its clock shows. */
export function drawFrame(n, milliseconds) {
  const out = Buffer.alloc(FRAME_BYTES);
  const t = n / RATE;
  drawLuma(out, t);
  drawChroma(out, t);
  clockBits(milliseconds).forEach((bit, i) => {
    for (let y = 0; y < 2 * CLOCK_CELL; y++) {
      out.fill(bit ? 235 : 16, y * WIDTH + i * CLOCK_CELL, y * WIDTH + (i + 1) * CLOCK_CELL);
    }
  });
  return out;
}

function drawLuma(out, t) {
  const ball = [60 + 200 * Math.abs(((t / 3) % 1) * 2 - 1), 150 - 90 * Math.abs(Math.sin(t * 3))];
  const wheel = [240, 95];
  for (let y = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++) {
      let luma = 60 + 50 * Math.sin((x + 12 * t) / 47) + (y * 70) / HEIGHT;
      const [dx, dy] = [x - wheel[0], y - wheel[1]];
      const radius = Math.hypot(dx, dy);
      if (radius < 52) {
        const spoke = Math.sin(4 * (Math.atan2(dy, dx) + t));
        luma = 126 + 90 * Math.max(-1, Math.min(1, (spoke * radius) / 5));
      }
      const far = Math.hypot(x - ball[0], y - ball[1]);
      if (far < 16) luma = 225 - 5 * far;
      out[y * WIDTH + x] = Math.max(16, Math.min(235, luma));
    }
  }
}

function drawChroma(out, t) {
  const [w, h] = [WIDTH / 2, HEIGHT / 2];
  const plane = w * h;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const at = WIDTH * HEIGHT + y * w + x;
      const clock = y < CLOCK_CELL;
      out[at] = clock ? 128 : 128 + 40 * Math.sin((x + y) / 60 + t / 2);
      out[at + plane] = clock ? 128 : 128 + 40 * Math.cos(x / 45 - t / 3);
    }
  }
}
