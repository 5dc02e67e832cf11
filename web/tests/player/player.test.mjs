// SPDX-License-Identifier: MPL-2.0
/**
 * node --test tests/player: `<nnv-video>` in a headless browser, with the decoder as it is shipped.
 * Needs the built package and page, Chromium, and GStreamer with the plugin on its path.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  CLIPS,
  defineShownBytes,
  launch,
  openPlayer,
  ready,
  startServer,
  sumAt,
  sumNow,
} from './browser.mjs';
import { makeClips } from './clips.mjs';

let browser;
let server;
let url;
let sums;

before(async () => {
  await makeClips(CLIPS);
  sums = JSON.parse(await readFile(join(CLIPS, 'demo.json'), 'utf8')).md5;
  browser = await launch();
  ({ server, url } = await startServer());
});

after(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
});

/** A page with a player that has its first picture. */
async function open(src, options = {}) {
  const opened = await openPlayer(browser, url, src, { before: defineShownBytes, ...options });
  await ready(opened.page);
  return opened;
}

async function close({ page, wrong }) {
  await page.close();
  assert.deepEqual(wrong, []);
}

const state = (page) =>
  page.evaluate(() => {
    const p = window.player;
    return {
      time: p.currentTime,
      duration: p.duration,
      paused: p.paused,
      ended: p.ended,
      muted: p.muted,
      volume: p.volume,
      sound: p.soundScheduled,
      size: [p.videoWidth, p.videoHeight],
      captions: p.shadowRoot.querySelector('.captions').textContent,
      status: p.shadowRoot.querySelector('[role=status]').textContent,
      alert: p.shadowRoot.querySelector('[role=alert]').textContent,
      code: p.error?.code,
      seen: window.seen,
    };
  });

const until = (page, condition, argument) =>
  page.waitForFunction(condition, argument, { timeout: 120_000 });

describe('pictures', () => {
  test('every seek shows the picture of linear decoding', async () => {
    const opened = await open('/clip/demo.mp4');
    const { page } = opened;
    assert.equal(await sumNow(page), sums[0]);
    // To and fro, within groups and over them, key frames, the ends.
    const numbers = [30, 31, 33, 120, 119, 49, 50, 51, 299, 0, 1, 250, 249, 203];
    for (const n of numbers) {
      assert.equal(await sumAt(page, n / 25), sums[n], `picture ${n} at its time`);
      assert.equal(await sumAt(page, n / 25 + 0.039), sums[n], `picture ${n} at its end`);
    }
    assert.equal(await sumAt(page, 12), sums[299], 'at the end');
    assert.ok(Math.abs((await state(page)).time - 12) < 1e-6);
    await close(opened);
  });

  test('the last of many seeks counts', async () => {
    const opened = await open('/clip/demo.mp4');
    const { page } = opened;
    await page.evaluate(async () => {
      for (let i = 0; i < 40; i++) {
        window.player.currentTime = ((i * 7) % 11) + 0.5;
        await new Promise((resolve) => setTimeout(resolve, (i % 5) * 6));
      }
      window.player.currentTime = 4.44;
    });
    await until(page, () => !window.player.seeking);
    assert.equal(await sumNow(page), sums[111]);
    assert.equal((await state(page)).time, 4.44);
    await close(opened);
  });

  test('single steps both ways', async () => {
    const opened = await open('/clip/demo.mp4');
    const { page } = opened;
    await sumAt(page, 2);
    await page.focus('nnv-video');
    const step = async (key, n) => {
      await page.keyboard.press(key);
      await until(
        page,
        (t) => Math.abs(window.player.currentTime - t) < 1e-3 && !window.player.seeking,
        n / 25,
      );
      assert.equal(await sumNow(page), sums[n], `${key} to ${n}`);
    };
    for (const n of [51, 52, 53]) await step('.', n);
    for (const n of [52, 51, 50, 49, 48]) await step(',', n);
    await close(opened);
  });

  test('ten bits in fragments, with Opus', async () => {
    const { md5 } = JSON.parse(await readFile(join(CLIPS, 'fragments.json'), 'utf8'));
    const opened = await open('/clip/fragments.mp4');
    const { page } = opened;
    await until(page, () => Number.isFinite(window.player.duration));
    assert.ok(Math.abs((await state(page)).duration - 2) < 0.05);
    for (const n of [0, 17, 9, 49, 30]) assert.equal(await sumAt(page, n / 25), md5[n], `${n}`);
    await page.evaluate(() => window.player.play());
    assert.ok(await page.evaluate(() => window.player.hasSound));
    await until(page, () => window.player.soundScheduled > 5);
    await close(opened);
  });

  test('turned, with pixels that are not square', async () => {
    const opened = await open('/clip/turned.mp4');
    // 160 × 96 with pixels of 4:3 is 213 × 96, and stands upright.
    assert.deepEqual((await state(opened.page)).size, [96, 213]);
    await close(opened);
  });

  test('a bare stream: every picture, and seeks', async () => {
    const opened = await open('/clip/demo.nnv');
    const { page } = opened;
    await until(page, () => Number.isFinite(window.player.duration));
    assert.ok(Math.abs((await state(page)).duration - 12) < 1e-3);
    for (const n of [0, 130, 60, 299, 51]) {
      assert.equal(await sumAt(page, n / 25), sums[n], `picture ${n}`);
    }
    await close(opened);
  });

  test('files from disk and from servers without ranges', async () => {
    for (const src of ['/fault/whole/demo.mp4', '/fault/whole/demo.nnv']) {
      const opened = await open(src);
      for (const n of [200, 10]) assert.equal(await sumAt(opened.page, n / 25), sums[n], src);
      await close(opened);
    }
    const opened = await open('/clip/turned.mp4');
    const { page } = opened;
    await page.evaluate(async () => {
      window.player.srcObject = await (await fetch('/clip/demo.mp4')).blob();
    });
    await until(page, () => window.player.readyState >= 2 && window.player.duration > 11);
    assert.equal(await sumAt(page, 5), sums[125]);
    await close(opened);
  });
});

describe('playing', () => {
  test('plays to its end with sound, in time, and again', async () => {
    const opened = await open('/clip/demo.mp4');
    const { page } = opened;
    await sumAt(page, 9);
    const before = Date.now();
    await page.evaluate(() => window.player.play());
    await until(page, () => window.player.ended);
    const took = (Date.now() - before) / 1000;
    const { seen, sound, paused } = await state(page);
    assert.ok(took > 2.5, `three seconds took ${took}`);
    // A piece of AAC lasts 21 ms.
    assert.ok(sound > 100, `${sound} pieces of sound`);
    assert.ok(paused);
    for (const name of ['play', 'playing', 'timeupdate', 'pause', 'ended']) {
      assert.ok(seen.includes(name), `${name} among ${seen}`);
    }
    await page.evaluate(() => window.player.play());
    assert.ok((await state(page)).time < 1);
    await close(opened);
  });

  test('captions come and go, and can be switched', async () => {
    const opened = await open('/clip/demo.mp4');
    const { page } = opened;
    const at = async (time) => {
      await sumAt(page, time);
      await page.waitForTimeout(100);
      return (await state(page)).captions;
    };
    assert.equal(await at(0.2), '');
    assert.equal(await at(1), 'nnvenc coded this picture.');
    assert.equal(await at(3.2), '');
    assert.equal(await at(8), 'Sound is AAC.\nThese words lie in the file, too.');
    await page.focus('nnv-video');
    await page.keyboard.press('c');
    assert.equal((await state(page)).captions, '');
    assert.equal((await state(page)).status, 'Captions off');
    await close(opened);
  });

  test('loop, rate, volume, autoplay', async () => {
    const opened = await open('/clip/demo.mp4', {
      attributes: { loop: '', muted: '', autoplay: '' },
    });
    const { page } = opened;
    assert.ok((await state(page)).muted);
    await until(page, () => !window.player.paused && window.player.currentTime > 0.3);
    await page.evaluate(() => {
      window.player.playbackRate = 2;
      window.player.currentTime = 11.5;
    });
    await until(page, () => !window.player.seeking && window.player.currentTime < 5);
    assert.equal((await state(page)).ended, false);
    const codes = await page.evaluate(() => {
      const tried = (action) => {
        try {
          action();
          return 'nothing';
        } catch (error) {
          return error.name;
        }
      };
      return [
        tried(() => (window.player.volume = 1.5)),
        tried(() => (window.player.playbackRate = 0)),
        tried(() => (window.player.currentTime = Number.NaN)),
      ];
    });
    assert.deepEqual(codes, ['IndexSizeError', 'NotSupportedError', 'TypeError']);
    await close(opened);
  });

  test('a page that was not touched plays on its own only without sound', async () => {
    const shy = await launch({ touch: true });
    try {
      const time = async (query) => {
        const page = await shy.newPage();
        await page.goto(`${url}player.html?src=/clip/demo.mp4&autoplay${query}`);
        // Whatever the test asks the page counts as touching it: so it waits.
        await page.waitForTimeout(4000);
        const { currentTime, paused } = await page.evaluate(() => {
          const { currentTime, paused } = document.querySelector('nnv-video');
          return { currentTime, paused };
        });
        await page.close();
        return paused ? 'paused' : currentTime;
      };
      assert.equal(await time(''), 'paused');
      assert.ok((await time('&muted')) > 0.2);
    } finally {
      await shy.close();
    }
  });

  test('memory stays bounded while it stands', async () => {
    const opened = await open('/clip/demo.mp4');
    await opened.page.waitForTimeout(1500);
    const { total } = await opened.page.evaluate(() => ({
      total: window.player.getVideoPlaybackQuality().totalVideoFrames,
    }));
    // Those that wait to be shown, what the decoder had begun, and the first.
    assert.ok(total <= 32 + 4 + 8 + 1, `${total} pictures were decoded ahead`);
    await close(opened);
  });
});

describe('controls', () => {
  test('keys', async () => {
    const opened = await open('/clip/demo.mp4');
    const { page } = opened;
    await page.focus('nnv-video');
    const press = async (key, time) => {
      await page.keyboard.press(key);
      await until(
        page,
        (t) => !window.player.seeking && Math.abs(window.player.currentTime - t) < 1e-3,
        time,
      );
    };
    await press('ArrowRight', 5);
    assert.equal((await state(page)).status, '5 seconds');
    await press('ArrowLeft', 0);
    await press('l', 10);
    await press('j', 0);
    await press('5', 6);
    await press('End', 12);
    await press('Home', 0);
    await page.keyboard.press('ArrowDown');
    assert.equal((await state(page)).volume, 0.95);
    await page.keyboard.press('m');
    assert.ok((await state(page)).muted);
    await page.keyboard.press('m');
    for (const key of [' ', 'k']) {
      await page.keyboard.press(key);
      await until(page, () => !window.player.paused && window.player.currentTime > 0.05);
      await page.keyboard.press(key);
      await until(page, () => window.player.paused);
    }
    await page.keyboard.press('f');
    await until(page, () => window.player.fullscreen);
    await page.keyboard.press('f');
    await until(page, () => !window.player.fullscreen);
    await close(opened);
  });

  test('tab order, and buttons by keyboard and mouse', async () => {
    const opened = await open('/clip/demo.mp4');
    const { page } = opened;
    const focused = () =>
      page.evaluate(() => window.player.shadowRoot.activeElement?.getAttribute('aria-label'));
    await page.focus('nnv-video');
    const order = [];
    for (let i = 0; i < 6; i++) {
      await page.keyboard.press('Tab');
      order.push(await focused());
    }
    assert.deepEqual(order, ['Position', 'Play', 'Mute', 'Volume', 'Captions', 'Full screen']);
    await page.getByRole('button', { name: 'Play', exact: true }).focus();
    await page.keyboard.press('Enter');
    await until(page, () => !window.player.paused);
    await page.getByRole('button', { name: 'Pause' }).click();
    assert.ok((await state(page)).paused);
    await page.getByRole('button', { name: 'Mute' }).click();
    assert.ok((await state(page)).muted);
    await page.getByRole('button', { name: 'Sound on' }).click();
    await page.getByRole('button', { name: 'Captions' }).click();
    assert.equal(await page.evaluate(() => window.player.captionsShown), false);
    const bar = await page.getByRole('slider', { name: 'Position' }).boundingBox();
    await page.mouse.click(bar.x + bar.width / 2, bar.y + bar.height / 2);
    await until(
      page,
      () => !window.player.seeking && Math.abs(window.player.currentTime - 6) < 0.3,
    );
    const box = await page.locator('nnv-video').boundingBox();
    await page.mouse.click(box.x + 30, box.y + 30);
    await until(page, () => !window.player.paused);
    await close(opened);
  });

  test('the bar goes while the film plays, and comes back', async () => {
    const opened = await open('/clip/demo.mp4');
    const { page } = opened;
    const idle = () => window.player.shadowRoot.querySelector('.stage').classList.contains('idle');
    await page.evaluate(() => window.player.play());
    await until(page, idle);
    const box = await page.locator('nnv-video').boundingBox();
    await page.mouse.move(box.x + 20, box.y + 20);
    assert.equal(await page.evaluate(idle), false);
    await close(opened);
  });
});
