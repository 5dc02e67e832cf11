// What the tests call in a page. `?from=` says where the package is.
const from = new URLSearchParams(location.search).get('from') ?? '/nnv/';
const nnv = await import(`${from}index.js`);

const base64 = (bytes) => {
  let text = '';
  for (let i = 0; i < bytes.length; i += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  }
  return btoa(text);
};
const said = (error) => ({ name: error.name, message: error.message });
async function bytesOf(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** Samples of a frame, tightly packed, as base64. */
async function samples(frame) {
  const bytes = new Uint8Array(frame.allocationSize());
  await frame.copyTo(bytes);
  return base64(bytes);
}

/** A decoder that collects. */
function collector(config, keep = true) {
  const result = { frames: [], warnings: [], error: null, dequeued: 0 };
  const waiting = [];
  let failed;
  const failure = new Promise((resolve) => { failed = resolve; });
  const decoder = new nnv.NnvDecoder({
    output(frame, info) {
      const entry = {
        format: frame.format,
        width: frame.visibleRect.width,
        height: frame.visibleRect.height,
        displayWidth: frame.displayWidth,
        displayHeight: frame.displayHeight,
        timestamp: frame.timestamp,
        duration: frame.duration,
        colorSpace: frame.colorSpace.toJSON(),
        info,
      };
      result.frames.push(entry);
      if (!keep) {
        frame.close();
        return;
      }
      waiting.push(samples(frame).then((data) => {
        entry.data = data;
        frame.close();
      }));
    },
    error(error) {
      result.error = { ...said(error), isDomException: error instanceof DOMException };
      failed();
    },
    warning: (text) => result.warnings.push(text),
  });
  decoder.ondequeue = () => { result.dequeued += 1; };
  if (config) decoder.configure({ codec: 'nnv1', ...config });
  return {
    result, decoder, failure,
    async end() {
      await Promise.race([decoder.state === 'configured' ? decoder.flush() : failure, failure])
        .catch((error) => { result.flush = said(error); });
      await Promise.all(waiting);
      if (decoder.state === 'configured') result.stats = await decoder.stats();
      result.state = decoder.state;
      if (decoder.state !== 'closed') decoder.close();
      return result;
    },
  };
}

async function split(bytes, step = bytes.length) {
  const splitter = await nnv.NnvSplitter.create();
  const chunks = [];
  for (let at = 0; at < bytes.length; at += step) {
    chunks.push(...splitter.push(bytes.subarray(at, at + step)));
  }
  chunks.push(...splitter.finish());
  const { sequence, skipped } = splitter;
  splitter.close();
  return { chunks, sequence, skipped };
}

function noise(seed) {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

globalThis.harness = {
  nnv,
  isolated: () => [crossOriginIsolated, typeof SharedArrayBuffer],

  /** Decodes a stream from its beginning, or from its n-th key frame on after what came before. */
  async decode(url, config = {}, { keep = true, key = 0, describe = false } = {}) {
    const begun = performance.now();
    const bytes = typeof url === 'string' ? await bytesOf(url) : url;
    const { chunks, sequence, skipped } = await split(bytes);
    if (describe) config.description = bytes.slice(0, 200);
    const run = collector(config, keep);
    if (key > 0) {
      const keys = chunks.flatMap((c, i) => (c.type === 'key' ? [i] : []));
      // Something is on its way when the seek comes.
      for (const chunk of chunks.slice(0, keys[key] - 1)) run.decoder.decode(chunk);
      await new Promise((resolve) => { setTimeout(resolve, 50); });
      run.decoder.reset();
      run.result.frames.length = 0;
      run.decoder.configure({ codec: 'nnv1', ...config });
      for (const chunk of chunks.slice(keys[key])) run.decoder.decode(chunk);
    } else {
      for (const chunk of chunks) {
        if (run.decoder.state !== 'configured') break;
        run.decoder.decode(chunk);
      }
    }
    run.result.queued = run.decoder.decodeQueueSize;
    const result = await run.end();
    return {
      ...result, sequence, skipped, chunks: chunks.length, elapsed: performance.now() - begun,
    };
  },

  /** Many streams behind each other, `times` times, with bytes flipped. */
  async flipped(urls, times, flips, seed, config = {}) {
    const parts = await Promise.all(urls.map(bytesOf));
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    const bytes = new Uint8Array(length * times);
    let at = 0;
    for (let n = 0; n < times; n += 1) {
      for (const part of parts) {
        bytes.set(part, at);
        at += part.length;
      }
    }
    const random = noise(seed);
    for (let n = 0; n < flips; n += 1) bytes[random() % bytes.length] ^= 1 << random() % 8;
    const result = await this.decode(bytes, config, { keep: false });
    return { ...result, frames: result.frames.length, bytes: bytes.length };
  },

  /** Bytes that are no stream, given as they are. */
  async raw(text, type = 'key') {
    const run = collector({});
    run.decoder.decode({ type, timestamp: 0, data: new TextEncoder().encode(text) });
    return run.end();
  },

  async configureOnly(config) {
    const run = collector(config);
    await Promise.race([run.failure, new Promise((resolve) => { setTimeout(resolve, 20_000); })]);
    return { ...run.result, state: run.decoder.state };
  },

  async splits(url, step) {
    const bytes = await bytesOf(url);
    const whole = await split(bytes);
    const parts = await split(bytes, step);
    const flat = ({ chunks }) => chunks.map((c) => [c.type, c.timestamp, c.duration, base64(c.data)]);
    const index = await nnv.readIndex(async (offset, length) => bytes.subarray(offset, offset + length));
    return {
      same: JSON.stringify(flat(whole)) === JSON.stringify(flat(parts)),
      keys: whole.chunks.filter((c) => c.type === 'key').map((c) => c.timestamp),
      end: Math.max(...whole.chunks.map((c) => c.timestamp + c.duration)),
      index,
      skipped: parts.skipped,
    };
  },

  /** Times of what comes after a jump to the n-th key frame of the index. */
  async restarts(url, n) {
    const bytes = await bytesOf(url);
    const index = await nnv.readIndex(async (offset, length) => bytes.subarray(offset, offset + length));
    const { offset, timestamp } = index.keys[n];
    const splitter = await nnv.NnvSplitter.create();
    splitter.restart(timestamp);
    const after = [...splitter.push(bytes.subarray(offset)), ...splitter.finish()];
    const whole = (await split(bytes)).chunks;
    const times = (chunks) => chunks.map((c) => [c.type, c.timestamp]);
    return { after: times(after), whole: times(whole).slice(-after.length), timestamp };
  },

  info: async (url) => nnv.sequenceInfo(await bytesOf(url)),
  infoOf: async (bytes) => nnv.sequenceInfo(new Uint8Array(bytes)),
  supported: (config) => nnv.NnvDecoder.isConfigSupported(config),

  /** What each of these calls throws. */
  async throws() {
    const make = () => new nnv.NnvDecoder({ output() {}, error() {} });
    const out = {};
    const tried = (name, work) => {
      try {
        work();
        out[name] = null;
      } catch (error) {
        out[name] = error.name;
      }
    };
    const data = new Uint8Array(4);
    tried('noInit', () => new nnv.NnvDecoder());
    tried('otherCodec', () => make().configure({ codec: 'av01' }));
    tried('negative', () => make().configure({ codec: 'nnv1', maxPixels: -1 }));
    tried('unconfigured', () => make().decode({ type: 'key', timestamp: 0, data }));
    const decoder = make();
    decoder.configure({ codec: 'nnv1' });
    tried('delta', () => decoder.decode({ type: 'delta', timestamp: 0, data }));
    tried('noTime', () => decoder.decode({ type: 'key', timestamp: NaN, data }));
    const flush = decoder.flush();
    decoder.reset();
    out.flush = await flush.then(() => null, (error) => error.name);
    out.state = decoder.state;
    tried('afterReset', () => decoder.decode({ type: 'key', timestamp: 0, data }));
    decoder.close();
    tried('closed', () => decoder.configure({ codec: 'nnv1' }));
    const given = new Uint8Array(8);
    const other = make();
    other.configure({ codec: 'nnv1' });
    other.decode({ type: 'key', timestamp: 0, data: given, transfer: true });
    out.transferred = given.byteLength;
    other.close();
    return out;
  },
};
document.body.dataset.ready = 'yes';
