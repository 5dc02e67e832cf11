// The package in headless Chromium: `node tests/run.mjs`, after scripts/web-build.sh.
// CHROMIUM: the browser, default /usr/bin/chromium.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { launch, open } from './browser.mjs';
import { serve } from './server.mjs';

const root = new URL('../../', import.meta.url);
const lines = (path) => readFileSync(new URL(path, root), 'utf8').split('\n')
  .filter((line) => line && !line.startsWith('#')).map((line) => line.split(' '));
const CONFORMANCE = lines('tests/conformance/MD5SUMS');
const DAMAGED = lines('web/tests/streams/MD5SUMS');
/** Their times are no whole microseconds: `cargo test -p nnv-web` compares them. */
const FINER = ['drawn-headers', 'drawn-times'];
const LIMIT = { timeout: 60_000 };

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k += 1) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c;
});
function crc32c(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ((crc ^ 0xffffffff) >>> 0).toString(16).padStart(8, '0');
}
const samplesOf = (frame) => Buffer.from(frame.data, 'base64');

/** Both MD5s of tests/conformance/README.md. */
function sums(frames) {
  const [listed, plain] = [createHash('md5'), createHash('md5')];
  for (const frame of frames) {
    const { grey, bitDepth } = frame.info;
    const data = samplesOf(frame);
    plain.update(data);
    const words = bitDepth === 8 ? Buffer.alloc(2 * data.length) : data;
    if (bitDepth === 8) data.forEach((v, i) => words.writeUInt16LE(4 * v, 2 * i));
    const format = grey ? (bitDepth === 8 ? 'GRAY8' : 'GRAY16_LE') : bitDepth === 8 ? 'I420' : 'I420_10LE';
    listed.update(`${format} ${frame.width}x${frame.height} ${crc32c(words)} Some(${frame.timestamp * 1000})\n`);
  }
  return [listed.digest('hex'), plain.digest('hex')];
}

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

/** Runs a test on a page of a server of its own. */
async function on({ server = {}, ...page }, work) {
  const server_ = await serve(server);
  try {
    const opened = await open(browser, server_.url, page);
    await work(opened.page, server_);
    assert.deepEqual(opened.errors, []);
    await opened.page.close();
  } finally {
    await server_.close();
  }
}
const decode = (page, ...args) => page.evaluate((a) => globalThis.harness.decode(...a), args);

for (const isolated of [false, true]) {
  describe(isolated ? 'isolated page' : 'plain page', () => {
    test('every conformance stream has the pixels of every other decoder', { timeout: 180_000 }, () =>
      on({ server: { isolated } }, async (page) => {
        assert.deepEqual(await page.evaluate(() => globalThis.harness.isolated()),
          isolated ? [true, 'function'] : [false, 'undefined']);
        for (const [name, count, listed, plain] of CONFORMANCE) {
          const got = await decode(page, `/conformance/${name}.nnv`, { conceal: false });
          assert.deepEqual([got.error, got.warnings], [null, []], name);
          assert.equal(got.frames.length, Number(count), name);
          const made = sums(got.frames);
          if (!FINER.includes(name)) assert.equal(made[0], listed, name);
          if (plain !== '-') assert.equal(made[1], plain, name);
          assert.ok(got.frames.every((f) => f.format === (f.info.bitDepth === 10 ? 'I420P10' : 'I420')));
          assert.ok(got.queued > 0 && got.dequeued > 0, 'a queue that empties');
          assert.equal(got.stats.frames, Number(count));
          assert.equal(got.stats.networks.way, 'kernels');
          assert.ok(got.stats.verified > 0 && got.stats.memory < 300 << 20, name);
        }
      }));
  });
}

describe('streams', () => {
  test('a seek gives what decoding from the beginning gives', LIMIT, () => on({}, async (page) => {
    for (const name of ['key-check', 'metadata', 'low-delay']) {
      const url = `/conformance/${name}.nnv`;
      const whole = await decode(page, url);
      const seek = await decode(page, url, {}, { key: 1 });
      assert.equal(seek.error, null);
      const first = seek.frames[0];
      assert.ok(first.info.key && first.timestamp > 0 && seek.frames.length > 2, name);
      const same = whole.frames.filter((f) => f.timestamp >= first.timestamp);
      assert.deepEqual(seek.frames, same, name);
    }
  }));

  test('damage is concealed as the element conceals it', LIMIT, () => on({}, async (page) => {
    for (const [name, count, plain] of DAMAGED) {
      const got = await decode(page, `/streams/${name}.nnv`);
      assert.equal(got.error, null);
      assert.equal(got.frames.length, Number(count), name);
      assert.equal(sums(got.frames)[1], plain, name);
      assert.ok(got.warnings.length > 0 && got.frames.some((f) => f.info.concealed), name);
      const strict = await decode(page, `/streams/${name}.nnv`, { conceal: false });
      assert.ok(strict.frames.length < Number(count), name);
    }
  }));

  test('ten thousand flipped bytes end, and the next stream is sound', { timeout: 120_000 }, () =>
    on({}, async (page) => {
      const urls = ['low-delay', 'hierarchical-b', 'key-check', 'metadata', 'odd-size', 'grey', 'ten-bit']
        .map((name) => `/conformance/${name}.nnv`);
      for (const [times, flips, seed] of [[8, 10_000, 1], [8, 300, 2], [4, 60, 3]]) {
        const got = await page.evaluate((a) => globalThis.harness.flipped(...a), [urls, times, flips, seed]);
        assert.ok(got.skipped > 0 && got.elapsed < 60_000, `${flips} flips`);
        assert.ok(got.error === null || got.error.message, `${flips} flips`);
      }
      const got = await decode(page, '/conformance/low-delay.nnv');
      assert.equal(sums(got.frames)[1], CONFORMANCE.find(([n]) => n === 'low-delay')[3]);
    }));

  test('bytes come in any pieces, and the index says the same', LIMIT, () => on({}, async (page) => {
    for (const [name, step] of [['parameter-change', 1], ['metadata', 7], ['low-delay', 1000]]) {
      const got = await page.evaluate((a) => globalThis.harness.splits(...a), [`/conformance/${name}.nnv`, step]);
      assert.ok(got.same && got.keys.length > 1 && got.skipped === 0, name);
      assert.deepEqual(got.index.keys.map((k) => k.timestamp), got.keys, name);
      assert.equal(got.index.keys[0].offset, 0);
      assert.equal(got.index.duration, got.end, name);
      const jump = await page.evaluate((a) => globalThis.harness.restarts(...a), [`/conformance/${name}.nnv`, 1]);
      assert.deepEqual(jump.after, jump.whole, name);
      assert.deepEqual(jump.after[0], ['key', jump.timestamp]);
    }
  }));

  test('headers say what is shown', LIMIT, () => on({}, async (page) => {
    const info = (name) => page.evaluate((u) => globalThis.harness.info(u), `/conformance/${name}.nnv`);
    const odd = await info('odd-size');
    assert.deepEqual([odd.width, odd.height, odd.displayWidth, odd.bitDepth, odd.grey], [81, 47, 81, 8, false]);
    assert.deepEqual(odd.frameRate, [25, 1]);
    assert.equal(odd.bundle.name, 'realtime');
    assert.match(odd.bundle.hash, /^[0-9a-f]{16}$/);
    assert.equal((await info('hierarchical-b')).maxReorder, 7);
    assert.equal((await info('ten-bit')).bitDepth, 10);
    assert.equal((await info('grey')).grey, true);
    assert.equal((await info('visual')).bundle.name, 'visual');
    assert.deepEqual([odd.profile, odd.level, odd.macsPerSample], ['main', 1, undefined]);
    const stated = await info('drawn-levels');
    assert.deepEqual([stated.level, stated.macsPerSample], [1, 9548]);
    assert.equal(await page.evaluate(() => globalThis.harness.infoOf([1, 2, 3])), undefined);
  }));

  test('a description loads the networks ahead', LIMIT, () => on({}, async (page, server) => {
    const got = await page.evaluate(async () => {
      const { nnv } = globalThis.harness;
      const response = await fetch('/conformance/low-delay.nnv');
      const description = new Uint8Array(await response.arrayBuffer()).slice(0, 400);
      const support = await nnv.NnvDecoder.isConfigSupported({ codec: 'nnv1', description });
      const decoder = new nnv.NnvDecoder({ output() {}, error(e) { throw e; } });
      decoder.configure({ codec: 'nnv1', description });
      const stats = await decoder.stats();
      decoder.close();
      return { stats, support };
    });
    assert.equal(got.support.supported, true);
    assert.ok(got.stats.loaded > 0);
    assert.equal(got.stats.bundle.name, 'realtime');
    const asked = server.asked.filter((path) => path.startsWith('/nnv/bundles/realtime-b6810cea96f96c4b/'));
    assert.equal(asked.length, 7);
    assert.ok(!asked.some((path) => path.includes('_enc')));
  }));
});

describe('bad input', () => {
  const bundles = (way) => ({ bundles: `/odd/${way}/bundles/` });
  for (const [way, name, words] of [
    ['html', 'NetworkError', /bundle\.toml|\.onnx|\.bin/],
    ['html-as-data', 'NetworkError', /web page in its place/],
    ['error', 'NetworkError', /503/],
    ['cut', 'NetworkError', /key_synth\.onnx/],
    ['short', 'NotSupportedError', /tables\.bin.*SHA-256/],
    ['flipped', 'NotSupportedError', /inter_synth\.onnx.*SHA-256/],
    ['other', 'NotSupportedError', /needs the networks "realtime" with hash/],
  ]) {
    test(`networks: ${way}`, LIMIT, () => on({}, async (page) => {
      const got = await decode(page, '/conformance/low-delay.nnv', bundles(way));
      assert.equal(got.state, 'closed');
      assert.equal(got.frames.length, 0);
      assert.ok(got.error.isDomException);
      assert.equal(got.error.name, name, got.error.message);
      assert.match(got.error.message, words);
      // The page lives, and the right place helps.
      assert.equal((await decode(page, '/conformance/low-delay.nnv')).frames.length, 12);
    }));
  }

  test('a decoder that cannot be fetched', LIMIT, async () => {
    for (const [way, name, words] of [
      ['no-worker', 'EncodingError', /Worker/],
      ['no-wasm', 'NetworkError', /nnv_web_bg\.wasm.*web page in its place/],
    ]) {
      await on({ from: `/odd/${way}/` }, async (page) => {
        const got = await page.evaluate(() => globalThis.harness.configureOnly({}));
        assert.deepEqual([got.state, got.error?.name], ['closed', name]);
        assert.match(got.error.message, words);
      });
    }
  });

  test('a policy without wasm-unsafe-eval', LIMIT, () =>
    on({ server: { policy: "default-src 'none'; script-src 'self'; connect-src 'self'" } }, async (page) => {
      const got = await page.evaluate(() => globalThis.harness.configureOnly({}));
      assert.equal(got.error.name, 'NotSupportedError');
      assert.match(got.error.message, /wasm-unsafe-eval/);
    }));

  test('a browser without vectors, or without VideoFrame', LIMIT, async () => {
    for (const [script, words] of [
      ['WebAssembly.validate = () => false', /WebAssembly SIMD/],
      ['delete globalThis.VideoFrame', /VideoFrame/],
      ['delete globalThis.WebAssembly', /WebAssembly/],
    ]) {
      await on({ script }, async (page) => {
        const support = await page.evaluate(() => globalThis.harness.supported({ codec: 'nnv1' }));
        assert.equal(support.supported, false);
        assert.match(support.reason, words);
        const got = await page.evaluate(() => globalThis.harness.configureOnly({}));
        assert.equal(got.error.name, 'NotSupportedError');
        assert.match(got.error.message, words);
      });
    }
  });

  test('what is no stream', LIMIT, () => on({}, async (page) => {
    for (const text of ['', '<!doctype html><title>Not found</title>', 'x'.repeat(100_000)]) {
      const got = await page.evaluate((t) => globalThis.harness.raw(t), text);
      assert.equal(got.frames.length, 0);
      assert.ok(got.error === null, got.error?.message);
    }
    const html = await decode(page, '/');
    assert.deepEqual([html.chunks, html.frames.length, html.error], [0, 0, null]);
    assert.ok(html.skipped > 0);
  }));

  test('pictures beyond the limit', LIMIT, () => on({}, async (page, server) => {
    const got = await decode(page, '/conformance/ink.nnv', { maxPixels: 10_000 });
    assert.equal(got.error.name, 'NotSupportedError');
    assert.match(got.error.message, /240x136.*maxPixels/);
    assert.ok(!server.asked.some((path) => path.includes('/bundles/')), 'nothing is fetched in vain');
    const support = (config) => page.evaluate((c) => globalThis.harness.supported(c), config);
    const large = await support({ codec: 'nnv1', codedWidth: 4096, codedHeight: 2160 });
    assert.equal(large.supported, false);
    assert.match(large.reason, /maxPixels/);
    assert.equal((await support({ codec: 'nnv1', codedWidth: 640, codedHeight: 360 })).supported, true);
    const slow = await page.evaluate(async () => {
      const { supported } = globalThis.harness;
      const response = await fetch('/conformance/drawn-levels.nnv');
      const description = new Uint8Array(await response.arrayBuffer()).slice(0, 400);
      const limits = [undefined, 1, 0.5, 11];
      const ask = (maxLevel) => supported({ codec: 'nnv1', description, maxLevel });
      return Promise.all(limits.map((limit) => ask(limit).then((s) => s.supported, (e) => e.name)));
    });
    assert.deepEqual(slow, [true, true, 'TypeError', 'TypeError']);
  }));

  test('calls in the wrong state', LIMIT, () => on({}, async (page) => {
    assert.deepEqual(await page.evaluate(() => globalThis.harness.throws()), {
      noInit: 'TypeError', otherCodec: 'TypeError', negative: 'TypeError',
      unconfigured: 'InvalidStateError', delta: 'DataError', noTime: 'TypeError',
      flush: 'AbortError', state: 'unconfigured', afterReset: 'InvalidStateError',
      closed: 'InvalidStateError', transferred: 0,
    });
  }));
});
