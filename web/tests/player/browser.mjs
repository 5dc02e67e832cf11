// SPDX-License-Identifier: MPL-2.0
/** A browser, a server with faults at will, and pages that tell what they should not. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { serve } from '../../demo/server/serve.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const ARGUMENTS =
  '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run ' +
  '--disable-background-networking --disable-component-update --disable-sync';

export const CLIPS = process.env.NNV_WEB_CLIPS ?? here('../../../out/web-demo');

/** Pages may make sound before they are touched, unless `touch` is true. */
export function launch({ touch = false } = {}) {
  const args = ARGUMENTS.split(' ');
  if (!touch) args.push('--autoplay-policy=no-user-gesture-required');
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  return chromium.launch({ executablePath, args });
}

/**
 * The demo's server; below /fault/ it does what servers do wrong:
 * - `/fault/html/NAME`: the start page in place of a file
 * - `/fault/whole/NAME`: no ranges
 * - `/fault/short/NAME`: the first 60 % of a file, as if it were all
 * - `/fault/broken/NAME`: connections break after 60 % of the file, whatever is asked for
 * - `/fault/flipped/NAME`: 10 000 bytes are others, anywhere but in the first 32
 * - `/fault/spotted/NAME`: 12 bytes of the data are others
 * - `/fault/empty/NAME`, `/fault/500/NAME`
 */
export async function startServer(options = {}) {
  const server = await serve({
    mounts: { '/clip/': CLIPS, '/nnv/': here('../../dist/'), '/': here('../../demo/dist/') },
    intercept: fault,
    ...options,
  });
  return { server, url: `http://127.0.0.1:${server.address().port}/` };
}

async function fault(request, response) {
  const [, kind, name] = /^\/fault\/([a-z0-9]+)\/([a-z.0-9]+)$/.exec(request.url) ?? [];
  if (!kind) return false;
  const file = join(CLIPS, name);
  const { size } = await stat(file);
  const part = Math.floor(size * 0.6);
  const start = Number(/^bytes=(\d+)/.exec(request.headers.range ?? '')?.[1] ?? 0);
  switch (kind) {
    case 'html':
      response.writeHead(200, { 'Content-Type': 'text/html' });
      response.end('<!doctype html><title>Start</title>');
      break;
    case 'whole':
      response.writeHead(200, { 'Content-Type': 'video/mp4', 'Content-Length': size });
      createReadStream(file).pipe(response);
      break;
    case 'short': {
      if (start >= part) {
        response.writeHead(416, { 'Content-Range': `bytes */${part}` });
        response.end();
        break;
      }
      const range = `bytes ${start}-${part - 1}/${part}`;
      response.writeHead(206, { 'Content-Range': range, 'Content-Length': part - start });
      createReadStream(file, { start, end: part - 1 }).pipe(response);
      break;
    }
    case 'broken': {
      const range = `bytes ${start}-${size - 1}/${size}`;
      response.writeHead(206, { 'Content-Range': range, 'Content-Length': size - start });
      if (start < part) response.write((await readFile(file)).subarray(start, part));
      setTimeout(() => response.destroy(), 50);
      break;
    }
    case 'flipped':
    case 'spotted': {
      const bytes = await readFile(file);
      const [count, from] = kind === 'flipped' ? [10_000, 32] : [12, Math.floor(size / 4)];
      flip(bytes, count, from);
      const range = `bytes ${start}-${size - 1}/${size}`;
      response.writeHead(206, { 'Content-Range': range, 'Content-Length': size - start });
      response.end(bytes.subarray(start));
      break;
    }
    case 'empty':
      response.writeHead(200, { 'Content-Type': 'video/mp4', 'Content-Length': 0 });
      response.end();
      break;
    default:
      response.writeHead(500);
      response.end();
  }
  return true;
}

/** Flips bits of `count` bytes from `from` on; the same ones each time. */
function flip(bytes, count, from) {
  let state = 1;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[from + (state % (bytes.length - from))] ^= 1 + (state >>> 25);
  }
}

/** What no page may do: break its policy, or throw. Filled while the page lives. */
export async function watch(page) {
  const wrong = [];
  page.on('pageerror', (error) => wrong.push(`threw: ${error.stack}`));
  page.on('console', (message) => {
    if (/Content Security Policy/i.test(message.text())) wrong.push(message.text());
  });
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      setTimeout(() => {
        throw new Error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
      });
    });
  });
  return wrong;
}

/** A page with one player that loads `src`; its events are counted in `window.seen`. */
export async function openPlayer(browser, url, src, { attributes = {}, before, viewport } = {}) {
  const page = await browser.newPage(viewport ? { viewport } : {});
  const wrong = await watch(page);
  if (before) await page.addInitScript(before);
  await page.goto(`${url}player.html`);
  await page.evaluate(
    async ([src, attributes]) => {
      await customElements.whenDefined('nnv-video');
      const player = document.createElement('nnv-video');
      const names =
        'loadstart loadedmetadata loadeddata canplay play playing pause timeupdate seeking seeked ' +
        'waiting ended error volumechange ratechange durationchange resize progress emptied';
      window.seen = [];
      for (const name of names.split(' ')) {
        player.addEventListener(name, () => window.seen.push(name));
      }
      player.setAttribute('controls', '');
      for (const [name, value] of Object.entries(attributes)) player.setAttribute(name, value);
      player.id = 'player';
      window.player = player;
      if (src) player.src = src;
      document.querySelector('main').append(player);
    },
    [src, attributes],
  );
  return { page, wrong };
}

/** Waits until the first picture is shown; throws with the player's own words. */
export async function ready(page) {
  await page.waitForFunction(() => window.player.readyState >= 2 || window.player.error, null, {
    timeout: 120_000,
  });
  const error = await page.evaluate(() => window.player.error?.message);
  if (error) throw new Error(error);
}

/** Goes to `time`, and MD5 of the picture that is then shown. */
export async function sumAt(page, time) {
  const bytes = await page.evaluate(async (time) => {
    const player = window.player;
    const sought = new Promise((resolve, reject) => {
      player.addEventListener('seeked', resolve, { once: true });
      player.addEventListener('error', () => reject(player.error), { once: true });
    });
    player.currentTime = time;
    await sought;
    return window.shownBytes();
  }, time);
  return md5(bytes);
}

/** MD5 of the picture that is shown. */
export async function sumNow(page) {
  return md5(await page.evaluate(() => window.shownBytes()));
}

function md5(text) {
  return createHash('md5').update(Buffer.from(text, 'latin1')).digest('hex');
}

/** For `before`: `shownBytes()` gives the planes of the shown picture, a character a byte. */
export function defineShownBytes() {
  window.shownBytes = async () => {
    const frame = window.player.captureFrame();
    const bytes = new Uint8Array(frame.allocationSize());
    await frame.copyTo(bytes);
    frame.close();
    let text = '';
    for (let i = 0; i < bytes.length; i += 8192) {
      text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    }
    return text;
  };
}
