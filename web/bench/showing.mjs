// SPDX-License-Identifier: MPL-2.0
/**
 * node bench/showing.mjs: ways to show `VideoFrame`s, in a headless browser without a GPU: on a
 * canvas, or through MediaStreamTrackGenerator in a `<video>`. For each: the page's own time a
 * picture, how many of 100 were shown, and how late they were.
 */
import { launch, startServer } from '../tests/player/browser.mjs';

const browser = await launch();
const { server, url } = await startServer();
const page = await browser.newPage();
await page.goto(`${url}player.html`);
const rows = await page.evaluate(async () => {
  const COUNT = 100;
  const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1] ?? Number.NaN;
  const picture = (w, h, format, i) => {
    const samples = new (format === 'I420P10' ? Uint16Array : Uint8Array)((w * h * 3) / 2);
    samples.fill(128).fill(16 + 2 * i, 0, w * h);
    const init = { format, codedWidth: w, codedHeight: h, timestamp: i * 40_000, duration: 40_000 };
    return new VideoFrame(samples, init);
  };
  const paced = async (show) => {
    const begin = performance.now();
    const own = [];
    for (let i = 0; i < COUNT; i++) {
      const wait = begin + i * 40 - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      const before = performance.now();
      show(i);
      own.push(performance.now() - before);
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
    return median(own);
  };

  const canvas = async (w, h, format) => {
    const element = document.createElement('canvas');
    [element.width, element.height] = [w, h];
    document.body.append(element);
    const context = element.getContext('2d', { alpha: false });
    const late = [];
    const own = await paced((i) => {
      const frame = picture(w, h, format, i);
      const given = performance.now();
      context.drawImage(frame, 0, 0, w, h);
      frame.close();
      requestAnimationFrame(() => late.push(performance.now() - given));
    });
    element.remove();
    return { way: 'canvas', own, shown: late.length, late: median(late) };
  };

  const generator = async (w, h, format) => {
    const track = new MediaStreamTrackGenerator({ kind: 'video' });
    const writer = track.writable.getWriter();
    const element = document.createElement('video');
    element.muted = true;
    element.srcObject = new MediaStream([track]);
    document.body.append(element);
    element.play();
    const given = [];
    const late = [];
    const shown = (now, { presentedFrames }) => {
      late.push(now - (given[presentedFrames - 1] ?? now));
      element.requestVideoFrameCallback(shown);
    };
    element.requestVideoFrameCallback(shown);
    const own = await paced((i) => {
      given.push(performance.now());
      writer.write(picture(w, h, format, i)).catch(() => undefined);
    });
    element.remove();
    return { way: 'generator', own, shown: late.length, late: median(late) };
  };

  const rows = [];
  for (const [w, h] of [
    [320, 180],
    [640, 360],
    [1280, 720],
  ]) {
    for (const format of ['I420', 'I420P10']) {
      for (const way of [canvas, generator]) {
        try {
          rows.push({ size: `${w}x${h}`, format, ...(await way(w, h, format)) });
        } catch (error) {
          rows.push({ size: `${w}x${h}`, format, way: way.name, error: String(error) });
        }
      }
    }
  }
  return rows;
});
console.table(rows);
await browser.close();
server.closeAllConnections();
server.close();
