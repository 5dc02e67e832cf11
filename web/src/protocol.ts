/** What a decoder and its Worker say to each other. */

import type { DecoderStats, FrameInfo } from './types.js';

export interface WorkerConfig {
  readonly description?: Uint8Array<ArrayBuffer> | undefined;
  readonly bundles: string;
  readonly conceal: boolean;
  readonly live: boolean;
  readonly maxPixels: number;
  readonly maxLevel: number;
}

export type ToWorker =
  | { kind: 'start'; module: WebAssembly.Module }
  | { kind: 'configure'; epoch: number; config: WorkerConfig }
  | {
      kind: 'decode';
      epoch: number;
      timestamp: number;
      duration: number | undefined;
      data: Uint8Array<ArrayBuffer>;
    }
  | { kind: 'flush'; epoch: number; id: number }
  | { kind: 'stats'; id: number };

export type FromWorker =
  | { kind: 'frame'; epoch: number; frame: VideoFrame; info: FrameInfo }
  | { kind: 'warning'; epoch: number; text: string }
  /** A chunk is decoded. */
  | { kind: 'done'; epoch: number }
  | { kind: 'flushed'; epoch: number; id: number }
  | { kind: 'stats'; id: number; stats: DecoderStats }
  /** Something goes on that takes time. */
  | { kind: 'alive' }
  | { kind: 'error'; epoch: number; name: string; message: string };
