// SPDX-License-Identifier: MPL-2.0
/** Import this file and `<nnv-video>` works in the page. */
import { definePlayer } from './element.js';

export type { DecoderOptions } from './decoding.js';
export {
  definePlayer,
  type FrameCallback,
  type FrameMetadata,
  NnvPlayer,
  type PlayedFrame,
} from './element.js';
export { MediaErrorCode, PlayerError } from './errors.js';
export { wording } from './wording.js';

if (typeof customElements !== 'undefined') definePlayer();
