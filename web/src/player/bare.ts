// SPDX-License-Identifier: MPL-2.0
/** Bare `.nnv` files: cut by the splitter, sought by the index that hops over the file. */
import { NnvSplitter, readIndex } from '../splitter.js';
import type { EncodedChunk, KeyFrameEntry, StreamIndex } from '../types.js';
import { blobSource, type ByteSource, retryDelay, type Sniffed } from './bytes.js';
import { MediaErrorCode, partial, PlayerError } from './errors.js';
import type { Media, Packet } from './media.js';

/** A file from a server without ranges is loaded whole before it plays, up to this many bytes. */
const MOST_WHOLE = 256 * 1024 * 1024;

/** Pictures whose times are remembered: more than lie between key frames as a rule. */
const MOST_TIMES = 4096;

/** Bytes that the index asks for at a time. */
const BLOCK = 256 * 1024;

const MICRO = 1_000_000;

/** Opens a bare stream. Rejects with a `PlayerError`. */
export async function openBare(
  source: ByteSource,
  sniffed: Sniffed,
  signal: AbortSignal,
): Promise<Media> {
  if (sniffed.ranges && sniffed.size !== null) return new Bare(source, sniffed.size);
  const blob = await whole(source, sniffed.size, signal);
  return new Bare({ ...blobSource(blob), url: source.url }, blob.size);
}

async function whole(source: ByteSource, size: number | null, signal: AbortSignal): Promise<Blob> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  const response = await source.fetch(source.url, { signal });
  if (size !== null && size > MOST_WHOLE) throw tooLong(source.url);
  const reader = response.body?.getReader();
  while (reader) {
    const { done, value } = await reader.read().catch((error: unknown) => {
      throw partial(source.url, error);
    });
    if (done) break;
    parts.push(value);
    length += value.length;
    if (length > MOST_WHOLE) {
      await reader.cancel();
      throw tooLong(source.url);
    }
  }
  return new Blob(parts);
}

function tooLong(url: string): PlayerError {
  return new PlayerError(
    MediaErrorCode.SRC_NOT_SUPPORTED,
    `${url} is too long for a server that sends no ranges. Use a server that does, or MP4.`,
  );
}

class Bare implements Media {
  duration = Number.POSITIVE_INFINITY;
  readonly live = false;
  readonly rotation = 0;
  readonly sound = undefined;
  readonly captions = [];
  onchange: (() => void) | undefined;
  readonly #source: ByteSource;
  readonly #size: number;
  readonly #abort = new AbortController();
  readonly #index: Promise<StreamIndex>;
  /** Times of the latest pictures, to find the one before. */
  readonly #times = new Set<number>();
  #came = 0;
  #block = { start: 0, bytes: new Uint8Array() };

  constructor(source: ByteSource, size: number) {
    this.#source = source;
    this.#size = size;
    const read = (offset: number, length: number) => this.#read(offset, length);
    this.#index = readIndex(read, this.#abort.signal);
    this.#index.then(
      ({ duration }) => {
        if (duration !== undefined) this.duration = duration / MICRO;
        this.onchange?.();
      },
      () => undefined,
    );
  }

  get buffered(): [number, number][] {
    if (!Number.isFinite(this.duration) || this.#came === 0) return [];
    return [[0, (this.#came / this.#size) * this.duration]];
  }

  async *packets(time: number): AsyncGenerator<Packet, void, unknown> {
    const splitter = await NnvSplitter.create();
    try {
      // The beginning needs no index.
      const key = time > 0 ? await this.#key(time) : undefined;
      if (key) splitter.restart(key.timestamp);
      for await (const bytes of this.#bytes(key?.offset ?? 0)) {
        yield* this.#packets(splitter.push(bytes));
      }
      yield* this.#packets(splitter.finish());
    } finally {
      splitter.close();
    }
  }

  async keyTime(time: number): Promise<number> {
    return (await this.#key(time))?.timestamp ?? 0;
  }

  async frameTime(time: number): Promise<number | null> {
    let before: number | null = null;
    for (const at of this.#times) {
      if (at <= time && (before === null || at > before)) before = at;
    }
    if (before !== null) return before;
    return (await this.#key(time))?.timestamp ?? null;
  }

  close(): void {
    this.onchange = undefined;
    this.#abort.abort();
  }

  async #key(time: number): Promise<KeyFrameEntry | undefined> {
    const { keys } = await this.#index;
    return keys.findLast((key) => key.timestamp <= time) ?? keys[0];
  }

  *#packets(chunks: readonly EncodedChunk[]): Generator<Packet, void, unknown> {
    for (const { type, timestamp, duration, data } of chunks) {
      this.#times.add(timestamp);
      const [oldest] = this.#times;
      if (this.#times.size > MOST_TIMES && oldest !== undefined) this.#times.delete(oldest);
      yield { type, timestamp, duration: duration ?? 0, data };
    }
  }

  /** The file from `start` on; a request that broke off goes on where it was. */
  async *#bytes(start: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, unknown> {
    let at = start;
    let attempts = 0;
    while (at < this.#size) {
      try {
        const init = this.#range(at, this.#size);
        const reader = (await this.#source.fetch(this.#source.url, init)).body?.getReader();
        if (!reader) return;
        try {
          while (true) {
            const { done, value } = await reader.read();
            if (done) break;
            at += value.length;
            attempts = 0;
            this.#came = Math.max(this.#came, at);
            this.onchange?.();
            yield value;
          }
        } finally {
          reader.cancel().catch(() => undefined);
        }
        if (at < this.#size) throw new Error('the connection ended early');
      } catch (error) {
        if (this.#abort.signal.aborted) return;
        attempts += 1;
        const delay = retryDelay(attempts, error);
        if (delay === null) {
          throw error instanceof PlayerError ? error : partial(this.#source.url, error);
        }
        await new Promise((resolve) => setTimeout(resolve, delay * 1000));
      }
    }
  }

  /** For the index, which hops over the file in small steps: whole blocks, the last of them kept. */
  async #read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const end = Math.min(offset + length, this.#size);
    if (offset >= end) return new Uint8Array();
    if (offset < this.#block.start || end > this.#block.start + this.#block.bytes.length) {
      const init = this.#range(offset, Math.min(Math.max(end, offset + BLOCK), this.#size));
      try {
        const response = await this.#source.fetch(this.#source.url, init);
        this.#block = { start: offset, bytes: new Uint8Array(await response.arrayBuffer()) };
      } catch (error) {
        throw error instanceof PlayerError ? error : partial(this.#source.url, error);
      }
    }
    return this.#block.bytes.subarray(offset - this.#block.start, end - this.#block.start);
  }

  #range(start: number, end: number): RequestInit {
    return { headers: { Range: `bytes=${start}-${end - 1}` }, signal: this.#abort.signal };
  }
}
