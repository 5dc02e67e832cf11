/** `NnvDecoder`: chunks in, `VideoFrame`s out, in the shape of WebCodecs' `VideoDecoder`. */

import type {
  Decoder, DecoderStats, EncodedChunk, NnvDecoderConfig, NnvDecoderInit, NnvDecoderSupport,
  SequenceInfo,
} from './types.js';
import type { FromWorker, ToWorker, WorkerConfig } from './protocol.js';
import { compile, glue, missing, ready, told } from './wasm.js';

/** Pictures of full HD, padded. */
const MAX_PIXELS = 1920 * 1088;
/**
 * Chunks that the Worker has at a time. What waits here is dropped by `reset` at once; one more
 * than it works on keeps it busy.
 */
const AHEAD = 2;
/** A Worker that says nothing for so many looks is given up. Looks stop while a page sleeps. */
const LOOKS = 12;
const LOOK = 5_000;

type Waiting =
  | { kind: 'decode'; message: ToWorker & { kind: 'decode' } }
  | { kind: 'flush'; id: number };

interface Settled<T> {
  resolve(value: T): void;
  reject(error: DOMException): void;
}

/** The bytes of a buffer or a view. */
function bytesOf(data: BufferSource): Uint8Array {
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return new Uint8Array(data);
}

function copied(data: BufferSource): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytesOf(data));
}

/** Checks a configuration; what it leaves out gets its default. */
function checked(config: NnvDecoderConfig): WorkerConfig {
  if (typeof config !== 'object' || config === null || config.codec !== 'nnv1') {
    throw new TypeError('codec must be "nnv1"');
  }
  const maxPixels = config.maxPixels ?? MAX_PIXELS;
  if (!(maxPixels > 0) || maxPixels > 2 ** 28) {
    throw new TypeError(`maxPixels is ${maxPixels}, it must be a number from 1 to 2^28`);
  }
  const maxLevel = config.maxLevel ?? Infinity;
  if (!(Number.isInteger(maxLevel) && maxLevel >= 1 && maxLevel <= 10) && maxLevel !== Infinity) {
    throw new TypeError(`maxLevel is ${maxLevel}, it must be a whole number from 1 to 10`);
  }
  if (![undefined, 'auto', 'kernels'].includes(config.networks)) {
    throw new TypeError(`networks is "${config.networks}", it must be "auto" or "kernels"`);
  }
  const threads = config.threads ?? 0;
  if (!Number.isInteger(threads) || threads < 0) {
    throw new TypeError(`threads is ${threads}, it must be a whole number from 0 on`);
  }
  const beside = new URL(/* @vite-ignore */ './bundles/', import.meta.url);
  const bundles = new URL(config.bundles ?? beside, globalThis.document?.baseURI ?? beside);
  if (!bundles.pathname.endsWith('/')) bundles.pathname += '/';
  return {
    description: config.description && copied(config.description),
    bundles: bundles.href,
    conceal: config.conceal ?? true,
    live: config.optimizeForLatency ?? false,
    maxPixels,
    maxLevel,
  };
}

export class NnvDecoder implements Decoder {
  ondequeue: (() => void) | null = null;
  readonly #init: NnvDecoderInit;
  #state: Decoder['state'] = 'unconfigured';
  #worker: Worker | undefined;
  /** Grows with `configure` and `reset`; what an older one gives is thrown away. */
  #epoch = 0;
  #needsKey = true;
  #queue: Waiting[] = [];
  /** Chunks and flushes that the Worker has. */
  #sent = 0;
  /** Chunks of this epoch that are not decoded. */
  #open = 0;
  #next = 0;
  #flushes = new Map<number, Settled<void>>();
  #asked = new Map<number, Settled<DecoderStats>>();
  #dequeuing = false;
  #watch: ReturnType<typeof setInterval> | undefined;
  #silent = 0;

  constructor(init: NnvDecoderInit) {
    if (typeof init?.output !== 'function' || typeof init.error !== 'function') {
      throw new TypeError('output and error must be functions');
    }
    this.#init = init;
  }

  /**
   * Whether this browser decodes such a stream. With `description` its header is read; without, the
   * size is judged where it is given.
   */
  static async isConfigSupported(config: NnvDecoderConfig): Promise<NnvDecoderSupport> {
    const { maxPixels, maxLevel, description } = checked(config);
    const no = (reason: string) => ({ supported: false, config, reason });
    const lacking = missing();
    if (lacking !== undefined) return no(lacking);
    let [width, height] = [config.codedWidth ?? 0, config.codedHeight ?? 0];
    if (description) {
      try {
        await ready();
        const info = glue.describe(description) as SequenceInfo;
        [width, height] = [info.codedWidth, info.codedHeight];
        if (info.level > maxLevel) {
          return no(`the stream is of level ${info.level}, above maxLevel, ${maxLevel}: raise it `
            + 'if this machine is fast enough');
        }
      } catch (error) {
        return no(told(error).message);
      }
    }
    if (width * height > maxPixels) {
      return no(`pictures of ${width}x${height} exceed maxPixels, ${maxPixels}: raise it if you `
        + 'trust the stream');
    }
    return { supported: true, config };
  }

  get state(): Decoder['state'] {
    return this.#state;
  }

  get decodeQueueSize(): number {
    return this.#open;
  }

  configure(config: NnvDecoderConfig): void {
    this.#mustNotBeClosed();
    const to = checked(config);
    this.#drop('configured anew');
    this.#state = 'configured';
    this.#needsKey = true;
    const epoch = ++this.#epoch;
    try {
      this.#start();
    } catch (error) {
      const { name, message } = told(error);
      // Errors of later are told later.
      queueMicrotask(() => this.#fail(epoch, name, `the Worker cannot be started: ${message}`));
      return;
    }
    this.#post({ kind: 'configure', epoch, config: to });
  }

  decode(chunk: EncodedChunk): void {
    this.#mustBeConfigured();
    if (this.#needsKey && chunk.type !== 'key') {
      throw new DOMException('the first chunk must be a key frame', 'DataError');
    }
    if (!Number.isFinite(chunk.timestamp)) {
      throw new TypeError(`timestamp is ${chunk.timestamp}, it must be a number`);
    }
    this.#needsKey = false;
    const given = bytesOf(chunk.data);
    const whole = chunk.transfer && given.buffer instanceof ArrayBuffer
      && given.byteLength === given.buffer.byteLength;
    const message: ToWorker & { kind: 'decode' } = {
      kind: 'decode',
      epoch: this.#epoch,
      timestamp: Math.round(chunk.timestamp),
      duration: chunk.duration === undefined ? undefined : Math.round(chunk.duration),
      // A transfer makes the giver's view empty.
      data: new Uint8Array(whole ? structuredClone(given.buffer, { transfer: [given.buffer] }) : given),
    };
    this.#open += 1;
    this.#queue.push({ kind: 'decode', message });
    this.#feed();
  }

  flush(): Promise<void> {
    this.#mustBeConfigured();
    this.#needsKey = true;
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#flushes.set(id, { resolve, reject });
      this.#queue.push({ kind: 'flush', id });
      this.#feed();
    });
  }

  reset(): void {
    this.#mustNotBeClosed();
    this.#drop('reset');
    this.#epoch += 1;
    this.#state = 'unconfigured';
    this.#needsKey = true;
  }

  close(): void {
    this.#mustNotBeClosed();
    this.#end(new DOMException('the decoder was closed', 'AbortError'));
  }

  stats(): Promise<DecoderStats> {
    this.#mustBeConfigured();
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject });
      this.#post({ kind: 'stats', id });
    });
  }

  #mustNotBeClosed(): void {
    if (this.#state === 'closed') {
      throw new DOMException('the decoder is closed', 'InvalidStateError');
    }
  }

  #mustBeConfigured(): void {
    this.#mustNotBeClosed();
    if (this.#state !== 'configured') {
      throw new DOMException('the decoder is not configured', 'InvalidStateError');
    }
  }

  #start(): void {
    if (this.#worker) return;
    // A file of its own beside this one, not one that the bundler makes.
    const script = new URL(/* @vite-ignore */ './worker.js', import.meta.url);
    const worker = new Worker(script, { type: 'module', name: 'nnv decoder' });
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#hear(data);
    worker.onerror = (event) => {
      event.preventDefault();
      const why = event.message || 'its script is not there, or the page\'s '
        + 'Content-Security-Policy forbids it (worker-src)';
      this.#fail(this.#epoch, 'EncodingError', `the decoder's Worker has failed: ${why}`);
    };
    this.#worker = worker;
    compile().then((module) => worker.postMessage({ kind: 'start', module } satisfies ToWorker))
      .then(() => this.#release(worker))
      .catch((error: unknown) => {
        const { name, message } = told(error);
        this.#fail(this.#epoch, name, message);
      });
    this.#watch = setInterval(() => this.#look(), LOOK);
  }

  /** Messages before the module is compiled. */
  #early: { message: ToWorker; transfer: Transferable[] }[] | undefined = [];

  #post(message: ToWorker, transfer: Transferable[] = []): void {
    if (this.#early) this.#early.push({ message, transfer });
    else this.#worker?.postMessage(message, transfer);
  }

  #release(worker: Worker): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const { message, transfer } of early) worker.postMessage(message, transfer);
  }

  /** Hands chunks on as the Worker finishes others. */
  #feed(): void {
    while (this.#sent < AHEAD) {
      const first = this.#queue.shift();
      if (!first) return;
      this.#sent += 1;
      if (first.kind === 'decode') this.#post(first.message, [first.message.data.buffer]);
      else this.#post({ kind: 'flush', epoch: this.#epoch, id: first.id });
    }
  }

  #hear(message: FromWorker): void {
    this.#silent = 0;
    const { kind } = message;
    if (kind === 'alive') return;
    if (kind === 'stats') {
      this.#asked.get(message.id)?.resolve(message.stats);
      this.#asked.delete(message.id);
      return;
    }
    if (message.epoch !== this.#epoch || this.#state !== 'configured') {
      if (kind === 'frame') message.frame.close();
      return;
    }
    switch (kind) {
      case 'frame':
        this.#init.output(message.frame, message.info);
        return;
      case 'warning':
        this.#init.warning?.(message.text);
        return;
      case 'done':
        this.#sent -= 1;
        this.#open -= 1;
        this.#feed();
        this.#tellDequeue();
        return;
      case 'flushed':
        this.#sent -= 1;
        this.#flushes.get(message.id)?.resolve();
        this.#flushes.delete(message.id);
        this.#feed();
        return;
      case 'error':
        this.#fail(message.epoch, message.name, message.message);
    }
  }

  #tellDequeue(): void {
    if (this.#dequeuing) return;
    this.#dequeuing = true;
    queueMicrotask(() => {
      this.#dequeuing = false;
      this.ondequeue?.();
    });
  }

  /** Whether the Worker has said something since the last look, where it has work. */
  #look(): void {
    const waiting = this.#state === 'configured' && (this.#sent > 0 || this.#asked.size > 0);
    this.#silent = waiting ? this.#silent + 1 : 0;
    if (this.#silent > LOOKS) {
      const seconds = (LOOKS * LOOK) / 1000;
      const what = `the decoder's Worker has said nothing for ${seconds} s and was ended`;
      this.#fail(this.#epoch, 'EncodingError', what);
    }
  }

  /** Forgets all that waits. */
  #drop(why: string): void {
    const error = new DOMException(`the decoder was ${why}`, 'AbortError');
    for (const { reject } of this.#flushes.values()) reject(error);
    this.#flushes.clear();
    this.#queue = [];
    this.#sent = this.#open = 0;
  }

  #end(error: DOMException): void {
    this.#state = 'closed';
    this.#worker?.terminate();
    this.#worker = undefined;
    clearInterval(this.#watch);
    for (const { reject } of [...this.#flushes.values(), ...this.#asked.values()]) reject(error);
    this.#flushes.clear();
    this.#asked.clear();
    this.#queue = [];
    this.#sent = this.#open = 0;
  }

  #fail(epoch: number, name: string, message: string): void {
    if (this.#state === 'closed' || epoch !== this.#epoch) return;
    const error = new DOMException(message, name);
    this.#end(error);
    this.#init.error(error);
  }
}
