// SPDX-License-Identifier: MPL-2.0
/** What goes wrong is told in the picture, as `error`, and soon; and the page stays alive. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CLIPS, launch, openPlayer, ready, startServer } from './browser.mjs';
import { makeClips } from './clips.mjs';

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

/** Loads `src`, plays it if it can be, and gives what the player says in the end. */
async function outcome(src, options) {
  const { page, wrong } = await openPlayer(browser, url, src, options);
  await page.evaluate(() => void window.player.play().catch(() => undefined));
  await page.waitForFunction(() => window.player.error || window.player.ended, null, {
    timeout: 120_000,
  });
  const told = await page.evaluate(() => ({
    code: window.player.error?.code,
    message: window.player.error?.message,
    alert: window.player.shadowRoot.querySelector('[role=alert]').textContent,
    events: window.seen.filter((name) => name === 'error').length,
    time: window.player.currentTime,
    ready: window.player.readyState,
    rejected: undefined,
  }));
  told.rejected = await page.evaluate(() =>
    window.player.play().then(
      () => 'played',
      (error) => error.name,
    ),
  );
  // The page answers, and the player plays what comes next.
  await page.evaluate(() => {
    window.player.src = '/clip/turned.mp4';
  });
  const next = options?.before ? undefined : await ready(page).then(() => 'plays');
  await page.close();
  assert.deepEqual(wrong, []);
  return { ...told, next };
}

const CASES = [
  ['no such file', '/clip/nothing.mp4', 4, /no .*nothing\.mp4 on the server \(404/],
  ['a page in place of a file', '/fault/html/demo.mp4', 4, /is a page \(HTML\), not a video/],
  ['an empty file', '/fault/empty/demo.mp4', 4, /is empty/],
  ['a server that fails', '/fault/500/demo.mp4', 4, /failed to send .* \(500/],
  ['another kind of file', '/clip/demo.json', 4, /neither MP4 nor an NNV stream/],
  ['video of another kind', '/clip/other.mp4', 4, /video of another kind \(avc1\)/],
  ['an unknown bundle', '/clip/unknown.nnv', 4, /bundle/i],
  ['a file that was cut', '/fault/short/demo.mp4', 2, /only in part|cut/],
  ['connections that break', '/fault/broken/demo.mp4', 2, /only in part|broke|connection/i],
  ['connections that break, bare', '/fault/broken/demo.nnv', 2, /only in part|broke|connection/i],
];

describe('bad input', () => {
  for (const [name, src, code, message] of CASES) {
    test(name, async () => {
      const told = await outcome(src);
      assert.match(told.message ?? 'no error', message);
      assert.equal(told.alert, told.message);
      assert.equal(told.code, code);
      assert.equal(told.events, 1);
      assert.equal(told.ready, 0);
      assert.equal(told.rejected, 'NotSupportedError');
      assert.equal(told.next, 'plays');
    });
  }

  test('10 000 flipped bytes: an error, and the page lives', async () => {
    for (const src of ['/fault/flipped/demo.mp4', '/fault/flipped/demo.nnv']) {
      const told = await outcome(src);
      assert.ok(told.alert.length > 20, `${src}: ${told.alert}`);
      assert.equal(told.next, 'plays');
    }
  });

  test('a few flipped bytes: pictures are concealed, and it plays to its end', async () => {
    const { page, wrong } = await openPlayer(browser, url, '/fault/spotted/demo.mp4');
    await page.evaluate(() => {
      window.warnings = [];
      window.player.addEventListener('warning', ({ detail }) => window.warnings.push(detail));
      window.player.playbackRate = 4;
      window.player.play();
    });
    await page.waitForFunction(() => window.player.ended || window.player.error, null, {
      timeout: 200_000,
    });
    assert.equal(await page.evaluate(() => window.player.error?.message), undefined);
    const { concealed } = await page.evaluate(() => window.player.stats());
    assert.ok(concealed > 0);
    assert.ok((await page.evaluate(() => window.warnings.length)) > 0);
    await page.close();
    assert.deepEqual(wrong, []);
  });

  test('a server that has gone', async () => {
    const { server, url } = await startServer();
    const { page, wrong } = await openPlayer(browser, url, undefined);
    server.closeAllConnections();
    server.close();
    await page.evaluate(() => {
      window.player.src = '/clip/demo.mp4';
    });
    await page.waitForFunction(() => window.player.error);
    const { code, message } = await page.evaluate(() => ({
      code: window.player.error.code,
      message: window.player.error.message,
    }));
    assert.equal(code, 2);
    assert.match(message, /cannot be reached/);
    await page.close();
    assert.deepEqual(wrong, []);
  });

  test('a live stream that never comes', async () => {
    const told = await outcome(`${url.replace('http', 'ws')}nothing`);
    assert.equal(told.code, 2);
    assert.match(told.message, /No data came from/);
  });
});

describe('browsers that cannot', () => {
  const without = [
    ['WebCodecs', () => delete window.VideoFrame, /no VideoFrame/],
    ['WebAssembly', () => delete window.WebAssembly, /no WebAssembly/],
    ['SIMD', () => (WebAssembly.validate = () => false), /SIMD/],
  ];
  for (const [name, before, message] of without) {
    test(`no ${name}`, async () => {
      const told = await outcome('/clip/demo.mp4', { before });
      assert.equal(told.code, 4);
      assert.match(told.alert, message);
    });
  }

  test('no isolation from other pages: it plays, with one thread', async () => {
    const { server, url } = await startServer({ isolated: false });
    try {
      const { page, wrong } = await openPlayer(browser, url, '/clip/demo.mp4');
      await ready(page);
      assert.equal(await page.evaluate(() => crossOriginIsolated), false);
      assert.equal(await page.evaluate(async () => (await window.player.stats()).threads), 1);
      await page.close();
      assert.deepEqual(wrong, []);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});
