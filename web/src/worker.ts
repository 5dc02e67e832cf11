/** Runs a decoder, off the page's thread. */

import type { DecoderStats } from './types.js';
import type { FromWorker, ToWorker, WorkerConfig } from './protocol.js';
import { PageError, fetchFile } from './fetching.js';
import { glue, instantiate, told } from './wasm.js';

/** Longest file of a bundle: those that ship have a megabyte. */
const MAX_FILE = 64 << 20;

/** What `WasmDecoder.receive` gives. */
interface Received {
  readonly id: number;
  readonly warning?: string;
  readonly at?: number;
  readonly length: number;
  readonly width: number;
  readonly height: number;
  readonly displayWidth: number;
  readonly displayHeight: number;
  readonly bitDepth: 8 | 10;
  readonly grey: boolean;
  readonly colorSpace: VideoColorSpaceInit;
  readonly concealed: boolean;
  readonly key: boolean;
  readonly pts?: number;
  readonly duration?: number;
}

type Counts = Pick<DecoderStats, 'frames' | 'concealed' | 'dropped' | 'missing' | 'verified'> & {
  bundle?: { name: string; hash: string };
  times: Omit<DecoderStats['times'], 'output' | 'total'>;
};

const scope = self as unknown as {
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
};

let memory: WebAssembly.Memory;
let decoder: InstanceType<typeof glue.WasmDecoder>;
let config: WorkerConfig;
let epoch = 0;
/** Times of the chunks whose frames are not out. */
let chunks = new Map<number, { timestamp: number; duration: number | undefined }>();
let next = 0;
let begun = 0;
let loaded: number | undefined;
let firstFrame: number | undefined;
let total = 0;
let output = 0;
/** After an internal error, or one that is told, nothing more is done for this epoch. */
let broken = 0;
let fetching: AbortController | undefined;
let lastAlive = 0;

function alive(): void {
  if (performance.now() - lastAlive > 1000) {
    lastAlive = performance.now();
    scope.postMessage({ kind: 'alive' });
  }
}

/** Fetches and loads the networks that a stream names. */
async function load(bundle: { name: string; hash: string }): Promise<void> {
  // What lies at an address never changes, and those of earlier streams stay beside the newest.
  const base = new URL(`${bundle.name}-${bundle.hash}/`, config.bundles);
  fetching = new AbortController();
  const { signal } = fetching;
  const names = glue.bundleFiles();
  const what = (name: string) => `the file ${name} of the networks "${bundle.name}"`;
  const missing = `the stream needs the networks "${bundle.name}" with hash ${bundle.hash}; there is no such `
    + `bundle at ${base.href}`;
  const files = await Promise.all(names.map((name) => fetchFile(new URL(name, base), {
    what: what(name), limit: MAX_FILE, missing, signal, progress: alive,
  })));
  files.forEach((bytes, i) => decoder.addFile(names[i] as string, bytes));
  decoder.load(base.href);
  alive();
}

async function configure(to: WorkerConfig): Promise<void> {
  config = to;
  begun = performance.now();
  loaded = firstFrame = undefined;
  total = output = 0;
  chunks = new Map();
  decoder.configure(to.conceal, to.live, to.maxPixels, to.maxLevel);
  if (to.description) {
    const bundle = decoder.needsDescribed(to.description) as { name: string; hash: string };
    if (bundle) await load(bundle);
    decoder.describe(to.description);
    loaded = performance.now() - begun;
  }
}

async function decode(message: ToWorker & { kind: 'decode' }): Promise<void> {
  const bundle = decoder.needs(message.data) as { name: string; hash: string } | undefined;
  if (bundle) await load(bundle);
  loaded ??= performance.now() - begun;
  const id = next++;
  chunks.set(id, { timestamp: message.timestamp, duration: message.duration });
  timed(() => decoder.send(message.data, id));
}

function timed(work: () => void): void {
  const start = performance.now();
  work();
  deliver();
  total += performance.now() - start;
}

/** Hands out what is ready. */
function deliver(): void {
  for (;;) {
    const got = decoder.receive() as Received | undefined;
    if (!got) return;
    if (got.warning !== undefined) {
      scope.postMessage({ kind: 'warning', epoch, text: got.warning });
    }
    const times = chunks.get(got.id);
    chunks.delete(got.id);
    if (got.at === undefined || !times) continue;
    const start = performance.now();
    const frame = videoFrame(got, got.at, times);
    output += performance.now() - start;
    firstFrame ??= performance.now() - begun;
    const info = {
      concealed: got.concealed,
      key: got.key,
      streamTimestamp: got.pts,
      streamDuration: got.duration,
      timestamp: times.timestamp,
      bitDepth: got.bitDepth,
      grey: got.grey,
    };
    scope.postMessage({ kind: 'frame', epoch, frame, info }, [frame]);
  }
}

function videoFrame(
  got: Received,
  at: number,
  times: { timestamp: number; duration: number | undefined },
): VideoFrame {
  const ten = got.bitDepth > 8;
  const duration = times.duration ?? got.duration;
  try {
    // Copies out of the memory that the next frame is written to.
    return new VideoFrame(new Uint8Array(memory.buffer as ArrayBuffer, at, got.length), {
      // Some libraries of types do not know the 10-bit formats yet.
      format: (ten ? 'I420P10' : 'I420') as VideoPixelFormat,
      codedWidth: got.width,
      codedHeight: got.height,
      displayWidth: got.displayWidth,
      displayHeight: got.displayHeight,
      timestamp: times.timestamp,
      ...(duration === undefined ? {} : { duration }),
      colorSpace: got.colorSpace,
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const what = `pictures of ${got.width}x${got.height} with ${got.bitDepth} bits`;
    throw new PageError('NotSupportedError', `this browser makes no frames of ${what}: ${why}`);
  }
}

function stats(): DecoderStats {
  const counts = decoder.stats() as Counts;
  return {
    ...counts,
    times: { ...counts.times, output, total },
    networks: {
      way: 'kernels',
      why: 'own kernels with 128-bit vectors: the known answers of the networks were right',
    },
    threads: 1,
    memory: memory.buffer.byteLength,
    loaded,
    firstFrame,
  };
}

async function handle(message: ToWorker): Promise<void> {
  switch (message.kind) {
    case 'start':
      memory = (await instantiate(message.module)).memory;
      decoder = new glue.WasmDecoder();
      return;
    case 'stats':
      scope.postMessage({ kind: 'stats', id: message.id, stats: stats() });
      return;
    case 'configure':
      epoch = message.epoch;
      await configure(message.config);
      return;
    case 'decode':
      if (broken !== epoch) await decode(message);
      scope.postMessage({ kind: 'done', epoch });
      return;
    case 'flush':
      if (broken === epoch) return;
      timed(() => decoder.finish());
      scope.postMessage({ kind: 'flushed', epoch, id: message.id });
  }
}

let work = Promise.resolve();
scope.onmessage = ({ data }) => {
  // Whoever configures anew does not wait for networks of the stream before.
  if (data.kind === 'configure') fetching?.abort();
  work = work.then(() => handle(data)).catch((error: unknown) => {
    broken = epoch;
    const { name, message } = told(error);
    scope.postMessage({ kind: 'error', epoch, name, message });
  });
};
