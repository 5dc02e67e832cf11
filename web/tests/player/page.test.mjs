// SPDX-License-Identifier: MPL-2.0
/**
 * The demo page: every picture equal to nnvdec's, a dropped file, live with less than half a
 * second of delay, accessible, and whole at 400 and 1280 pixels.
 * `NNV_SCREENSHOTS=FOLDER` keeps pictures of it.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CLIPS, launch, startServer, watch } from './browser.mjs';
import { makeClips } from './clips.mjs';

const SIZES = [
  { width: 1280, height: 900 },
  { width: 400, height: 800 },
];

let browser;
let server;
let url;

before(async () => {
  await makeClips(CLIPS);
  browser = await launch();
  ({ server, url } = await startServer());
});

after(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
});

async function open(options) {
  const page = await browser.newPage(options);
  const wrong = await watch(page);
  await page.goto(url);
  const player = page.locator('nnv-video');
  const loaded = () => document.querySelector('nnv-video').readyState >= 2;
  await page.waitForFunction(loaded, null, { timeout: 120_000 });
  return { page, wrong, player };
}

async function close({ page, wrong }) {
  await page.close();
  assert.deepEqual(wrong, []);
}

async function keep(page, name) {
  const folder = process.env.NNV_SCREENSHOTS;
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

describe('the demo', () => {
  test('every picture of the clip is nnvdec’s', { timeout: 300_000 }, async () => {
    const opened = await open({ viewport: SIZES[0] });
    const { page } = opened;
    // Slowly: a player that is short of time goes on at a key frame, and leaves pictures out.
    await page.evaluate(() => {
      const player = document.querySelector('nnv-video');
      player.playbackRate = 0.25;
      return player.play();
    });
    const done = () => {
      const text = document.getElementById('verdict').textContent;
      return document.querySelector('nnv-video').ended || text.startsWith('✗') ? text : false;
    };
    const handle = await page.waitForFunction(done, null, { timeout: 280_000 });
    await page.waitForTimeout(500);
    assert.match(await page.textContent('#verdict'), /^✓ Equal: 300 of 300 pictures/);
    assert.ok(await handle.jsonValue());
    await keep(page, 'demo-1280-equal');
    await close(opened);
  });

  test('a file that is dropped, and one that is chosen', async () => {
    const opened = await open({ viewport: SIZES[0] });
    const { page } = opened;
    const bytes = [...(await readFile(join(CLIPS, 'turned.mp4')))];
    await page.evaluate((bytes) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], 'turned.mp4', { type: 'video/mp4' }));
      const event = new DragEvent('drop', { dataTransfer: transfer, bubbles: true });
      document.body.dispatchEvent(event);
    }, bytes);
    const upright = () => document.querySelector('nnv-video').videoHeight === 213;
    await page.waitForFunction(upright, null, { timeout: 120_000 });
    assert.match(await page.textContent('#verdict'), /No checksums of nnvdec/);
    await page.setInputFiles('#file', join(CLIPS, 'fragments.mp4'));
    const flat = () => document.querySelector('nnv-video').videoHeight === 96;
    await page.waitForFunction(flat, null, { timeout: 120_000 });
    await close(opened);
  });

  test('live, with less than half a second of delay', { timeout: 300_000 }, async () => {
    const opened = await open({ viewport: SIZES[0] });
    const { page } = opened;
    await page.getByRole('button', { name: 'Live from GStreamer' }).click();
    const many = () =>
      document.querySelector('nnv-video').getVideoPlaybackQuality().totalVideoFrames > 200;
    await page.waitForFunction(many, null, { timeout: 200_000 });
    await page.waitForTimeout(1000);
    const facts = await page.textContent('#facts');
    const [, median, late] = /(\d+) ms \(median\), (\d+) ms \(95/.exec(facts) ?? [];
    console.log(`delay: ${median} ms (median), ${late} ms (95 of 100)`);
    // On a machine that has other things to do it is their delay that is measured.
    const limit = loadavg()[0] > 2 * cpus().length ? 2000 : 500;
    assert.ok(Number(median) < limit, `${median} ms: ${facts}`);
    await keep(page, 'demo-1280-live');
    await close(opened);
  });

  for (const viewport of SIZES) {
    for (const colorScheme of ['light', 'dark']) {
      test(`accessible and whole at ${viewport.width}, ${colorScheme}`, async () => {
        const opened = await open({ viewport, colorScheme, reducedMotion: 'reduce' });
        const { page } = opened;
        // Something is in the table, and a caption on the picture.
        await page.evaluate(() => {
          document.querySelector('nnv-video').currentTime = 1;
        });
        await page.waitForFunction(() => document.querySelectorAll('#sums tr').length > 4);
        await page.waitForTimeout(1500);
        const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
        await page.evaluate(await readFile(axe, 'utf8'));
        const found = await page.evaluate(async () => {
          const { violations } = await window.axe.run();
          return violations.map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html).join(' ')}`);
        });
        assert.deepEqual(found, []);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= viewport.width, `${wide} pixels wide`);
        await keep(page, `demo-${viewport.width}-${colorScheme}`);
        await close(opened);
      });
    }
  }

  test('an error reads well at 400 pixels', async () => {
    const page = await browser.newPage({ viewport: SIZES[1] });
    await page.goto(`${url}player.html?src=/clip/nothing.mp4`);
    const alert = page.locator('nnv-video').getByRole('alert');
    await alert.filter({ hasText: 'nothing.mp4' }).waitFor();
    const [box, text] = [await page.locator('nnv-video').boundingBox(), await alert.boundingBox()];
    assert.ok(text.x >= box.x && text.x + text.width <= box.x + box.width);
    assert.ok(text.y >= box.y && text.y + text.height <= box.y + box.height);
    await keep(page, 'player-400-error');
    await page.close();
  });
});
