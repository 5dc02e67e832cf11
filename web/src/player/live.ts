// SPDX-License-Identifier: MPL-2.0
/** A stream that arrives over a WebSocket while it is made: bytes of `.nnv`, cut anywhere. */
import { NnvSplitter } from '../splitter.js';
import { MediaErrorCode, PlayerError } from './errors.js';
import type { Media, Packet } from './media.js';

/** Seconds to wait for the connection, and then for data. */
const PATIENCE = 10;

/** Connects to `url` (ws: or wss:). Rejects with a `PlayerError`. */
export async function openLive(url: string, signal: AbortSignal): Promise<Media> {
  const splitter = await NnvSplitter.create();
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  const live = new Live(url, socket, splitter);
  signal.addEventListener('abort', () => live.close());
  try {
    await live.opened();
    return live;
  } catch (error) {
    live.close();
    throw error;
  }
}

class Live implements Media {
  readonly duration = Number.POSITIVE_INFINITY;
  readonly live = true;
  readonly rotation = 0;
  readonly sound = undefined;
  readonly captions = [];
  readonly buffered = [];
  onchange: (() => void) | undefined;
  readonly #url: string;
  readonly #socket: WebSocket;
  readonly #splitter: NnvSplitter;
  #waiting: Packet[] = [];
  #ended: PlayerError | 'closed' | undefined;
  #wake: (() => void) | undefined;
  #patience: ReturnType<typeof setTimeout> | undefined;

  constructor(url: string, socket: WebSocket, splitter: NnvSplitter) {
    this.#url = url;
    this.#socket = socket;
    this.#splitter = splitter;
    socket.onmessage = ({ data }) => this.#came(data);
    socket.onclose = ({ reason }) => {
      const why = reason ? ` (${reason})` : '';
      this.#end(new PlayerError(MediaErrorCode.NETWORK, `The live stream ended${why}.`));
    };
    socket.onerror = () => this.#end(this.#unreachable());
    this.#expect();
  }

  opened(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.onopen = () => resolve();
      this.#wake = () => {
        if (this.#ended) reject(this.#ended);
      };
    });
  }

  async *packets(): AsyncGenerator<Packet, void, unknown> {
    while (true) {
      const waiting = this.#waiting;
      this.#waiting = [];
      yield* waiting;
      if (this.#waiting.length > 0) continue;
      if (this.#ended === 'closed') return;
      if (this.#ended) throw this.#ended;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  keyTime(time: number): Promise<number> {
    return Promise.resolve(time);
  }

  frameTime(): Promise<null> {
    return Promise.resolve(null);
  }

  close(): void {
    this.#end('closed');
  }

  #came(data: ArrayBuffer): void {
    if (this.#ended) return;
    this.#expect();
    // The time of arrival: live pictures are shown when they are there.
    const timestamp = Math.round(performance.now() * 1000);
    for (const { type, data: bytes } of this.#splitter.push(data)) {
      this.#waiting.push({ type, timestamp, duration: 0, data: bytes });
    }
    this.#wake?.();
  }

  #expect(): void {
    clearTimeout(this.#patience);
    this.#patience = setTimeout(() => this.#end(this.#unreachable()), PATIENCE * 1000);
  }

  #unreachable(): PlayerError {
    const message = `No data came from ${this.#url}. Is the server running, and its pipeline?`;
    return new PlayerError(MediaErrorCode.NETWORK, message);
  }

  #end(why: PlayerError | 'closed'): void {
    if (this.#ended) return;
    this.#ended = why;
    clearTimeout(this.#patience);
    this.#socket.onmessage = null;
    this.#socket.close();
    this.#splitter.close();
    this.#wake?.();
  }
}
