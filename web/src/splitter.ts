/** Bare streams and their headers, on the page's own thread: both take next to no time. */

import type {
  EncodedChunk, KeyFrameEntry, SequenceInfo, Splitter, StreamIndex,
} from './types.js';
import { glue, ready, told } from './wasm.js';

function bytesOf(data: BufferSource): Uint8Array {
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return new Uint8Array(data);
}

/** Runs something; what goes wrong becomes a `DOMException`. */
async function asking<T>(work: () => Promise<T>): Promise<T> {
  try {
    await ready();
    return await work();
  } catch (error) {
    const { name, message } = told(error);
    throw new DOMException(message, name);
  }
}

export class NnvSplitter implements Splitter {
  readonly #inner: InstanceType<typeof glue.WasmSplitter>;
  #open = true;

  private constructor() {
    this.#inner = new glue.WasmSplitter();
  }

  /** Fetches the module, where that did not happen yet. Rejects with a `DOMException`. */
  static create(): Promise<NnvSplitter> {
    return asking(async () => new NnvSplitter());
  }

  get sequence(): SequenceInfo | undefined {
    return this.#inner.sequence() as SequenceInfo | undefined;
  }

  get skipped(): number {
    return this.#inner.skipped();
  }

  push(bytes: BufferSource): EncodedChunk[] {
    return this.#inner.push(bytesOf(bytes)) as EncodedChunk[];
  }

  finish(): EncodedChunk[] {
    return this.#inner.finish() as EncodedChunk[];
  }

  restart(timestamp?: number): void {
    this.#inner.restart(timestamp);
  }

  /** A part of the stream that this version cannot read; told once each. */
  takeWarning(): string | undefined {
    return this.#inner.takeWarning();
  }

  close(): void {
    if (this.#open) this.#inner.free();
    this.#open = false;
  }
}

/**
 * What the sequence header says: in a description as decoders take it, or the first one in the
 * bytes of a stream. `undefined` where there is none.
 */
export function sequenceInfo(bytes: BufferSource): Promise<SequenceInfo | undefined> {
  return asking(async () => {
    const data = bytesOf(bytes);
    const found = glue.sequenceIn(data) as SequenceInfo | undefined;
    if (found) return found;
    try {
      return glue.describe(data) as SequenceInfo;
    } catch (error) {
      if (told(error).name === 'NotSupportedError') throw error;
      return undefined;
    }
  });
}

/**
 * Finds the key frames of a `.nnv` file, hopping from unit to unit. `read` gives the bytes from
 * `offset` on, `length` of them, fewer only at the end of the file.
 */
export function readIndex(
  read: (offset: number, length: number) => Promise<BufferSource>,
  signal?: AbortSignal,
): Promise<StreamIndex> {
  return asking(async () => {
    const index = new glue.WasmIndex();
    try {
      for (;;) {
        const wanted = index.step() as [number, number] | undefined;
        if (!wanted) break;
        signal?.throwIfAborted();
        const [offset, length] = wanted;
        index.give(offset, length, bytesOf(await read(offset, length)));
      }
      return index.result() as { keys: KeyFrameEntry[]; duration?: number };
    } finally {
      index.free();
    }
  });
}
