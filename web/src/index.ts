/** NNV neural video in a web page. */

export type * from './types.js';
export { NnvDecoder } from './decoder.js';
export { NnvSplitter, readIndex, sequenceInfo } from './splitter.js';
