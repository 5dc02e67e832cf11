// SPDX-License-Identifier: MPL-2.0
/** Checksums of pictures, beside those of `nnvdec`. */

/** Pictures whose checksums are under way; more are passed over, so that memory stays bounded. */
const MOST_PENDING = 64;

/** The planes of a picture behind each other without gaps, as `nnvdec` writes them. */
export async function planes(frame: VideoFrame): Promise<ArrayBuffer> {
  const bytes = new ArrayBuffer(frame.allocationSize());
  await frame.copyTo(bytes);
  return bytes;
}

export class Sums {
  readonly #worker = new Worker(new URL('./sums.worker.ts', import.meta.url), { type: 'module' });
  readonly #waiting = new Map<number, (sum: string) => void>();
  #next = 0;

  constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<{ id: number; sum: string }>) => {
      this.#waiting.get(data.id)?.(data.sum);
      this.#waiting.delete(data.id);
    };
  }

  /** MD5 of a picture, as hex; `undefined` where too many are under way. The frame stays open. */
  async of(frame: VideoFrame): Promise<string | undefined> {
    if (this.#waiting.size >= MOST_PENDING) return undefined;
    const id = this.#next++;
    const sum = new Promise<string>((resolve) => this.#waiting.set(id, resolve));
    const copy = frame.clone();
    try {
      const bytes = await planes(copy);
      this.#worker.postMessage({ id, bytes }, [bytes]);
    } catch (error) {
      this.#waiting.delete(id);
      throw error;
    } finally {
      copy.close();
    }
    return sum;
  }
}
