// SPDX-License-Identifier: MPL-2.0
/** `NnvDecoder` as the player uses it, and whether this browser can run it. */
import { NnvDecoder } from '../decoder.js';
import type { DecoderStats, FrameInfo, NnvDecoderConfig } from '../types.js';
import type { PictureDecoder } from './engine.js';
import { MediaErrorCode, PlayerError } from './errors.js';
import type { Packet } from './media.js';

/** How players decode: what of `NnvDecoderConfig` a page may choose. */
export type DecoderOptions = Pick<
  NnvDecoderConfig,
  'bundles' | 'threads' | 'networks' | 'maxPixels'
>;

export interface PlayerDecoderInit {
  output(frame: VideoFrame, info: FrameInfo): void;
  error(error: PlayerError): void;
  warning(text: string): void;
}

/** What the player knows of its decoder beside what the engine needs. */
export interface PlayerDecoder extends PictureDecoder {
  stats(): Promise<DecoderStats>;
}

/** Why this browser cannot play, in words; `undefined` if it can. */
export async function supportProblem(options: DecoderOptions): Promise<string | undefined> {
  const { supported, reason } = await NnvDecoder.isConfigSupported({ codec: 'nnv1', ...options });
  if (supported) return undefined;
  return sentence(reason ?? 'this browser cannot decode NNV');
}

/** A decoder that is ready for a key frame. `live`: pictures come out as soon as they can. */
export function makeDecoder(
  options: DecoderOptions,
  live: boolean,
  init: PlayerDecoderInit,
): PlayerDecoder {
  const config: NnvDecoderConfig = { codec: 'nnv1', ...options, optimizeForLatency: live };
  const decoder = new NnvDecoder({
    output: (frame, info) => init.output(frame, info),
    error: (error) => init.error(asError(error)),
    warning: (text) => init.warning(text),
  });
  decoder.configure(config);
  return {
    get decodeQueueSize() {
      return decoder.decodeQueueSize;
    },
    set ondequeue(callback: (() => void) | null) {
      decoder.ondequeue = callback;
    },
    decode: (packet: Packet) => decoder.decode(packet),
    flush: () => decoder.flush(),
    restart: () => {
      decoder.reset();
      decoder.configure(config);
    },
    close: () => {
      if (decoder.state !== 'closed') decoder.close();
    },
    stats: () => decoder.stats(),
  };
}

function asError(error: DOMException): PlayerError {
  // What names networks that are not here, or pictures that are too large, is no damage.
  const code =
    error.name === 'NotSupportedError'
      ? MediaErrorCode.SRC_NOT_SUPPORTED
      : error.name === 'NetworkError'
        ? MediaErrorCode.NETWORK
        : MediaErrorCode.DECODE;
  return new PlayerError(code, sentence(error.message), { cause: error });
}

/** The decoder's words, as they stand alone in the picture. */
function sentence(words: string): string {
  const end = /[.!?]$/.test(words) ? '' : '.';
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}${end}`;
}
