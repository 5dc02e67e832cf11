/** The WebAssembly module, compiled once for a page and its Workers. */

import init, * as glue from './wasm/nnv_web.js';
import type { InitOutput } from './wasm/nnv_web.js';
import { PageError, fetchFile } from './fetching.js';

/** Longer modules are not ours. */
const LIMIT = 32 << 20;

/** A module with one instruction of 128 bits. */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11,
]);

/** Why this browser cannot decode; `undefined` where it can. */
export function missing(): string | undefined {
  if (typeof WebAssembly !== 'object') {
    return 'this browser runs no WebAssembly here: the page\'s Content-Security-Policy must allow '
      + '\'wasm-unsafe-eval\' in script-src';
  }
  let simd: boolean;
  try {
    simd = WebAssembly.validate(SIMD);
  } catch {
    simd = false;
  }
  if (!simd) {
    return 'this browser has no WebAssembly SIMD: it needs Chrome 91, Firefox 89, Safari 16.4 or '
      + 'later, and a processor with vector instructions';
  }
  if (typeof VideoFrame !== 'function') {
    return 'this browser has no VideoFrame: it needs Chrome 94, Firefox 130, Safari 16.4 or later, '
      + 'and a secure page (https, or localhost)';
  }
  if (typeof Worker !== 'function') return 'this browser has no Workers';
  return undefined;
}

let compiled: Promise<WebAssembly.Module> | undefined;

/** The compiled module. What failed once is tried again by the next who asks. */
export function compile(): Promise<WebAssembly.Module> {
  compiled ??= (async () => {
    const lacking = missing();
    if (lacking !== undefined) throw new PageError('NotSupportedError', lacking);
    const url = new URL(/* @vite-ignore */ './nnv_web_bg.wasm', import.meta.url);
    const bytes = await fetchFile(url, { what: 'the decoder', limit: LIMIT });
    try {
      return await WebAssembly.compile(bytes);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new PageError('NotSupportedError', `the decoder (${url.href}) cannot be compiled; the `
        + 'page\'s Content-Security-Policy must allow \'wasm-unsafe-eval\' in script-src, and the file '
        + `must be whole: ${why}`);
    }
  })().catch((error: unknown) => {
    compiled = undefined;
    throw error;
  });
  return compiled;
}

/** Makes this thread's instance. */
export async function instantiate(module: WebAssembly.Module): Promise<InitOutput> {
  return init({ module_or_path: module });
}

let here: Promise<void> | undefined;

/** This thread's instance, for what takes no time. */
export function ready(): Promise<void> {
  here ??= compile().then(instantiate).then(() => undefined).catch((error: unknown) => {
    here = undefined;
    throw error;
  });
  return here;
}

/** An error out of WebAssembly or of fetching, as name and message of a `DOMException`. */
export function told(error: unknown): { name: string; message: string; fatal: boolean } {
  const trapped = typeof WebAssembly === 'object' && error instanceof WebAssembly.RuntimeError;
  if (trapped || error instanceof RangeError) {
    let panic = '';
    try {
      panic = glue.lastPanic();
    } catch {
      // An instance that has stopped need not answer.
    }
    const message = `the decoder has stopped on an internal error (${panic || error.message}); `
      + 'please report it';
    return { name: 'EncodingError', message, fatal: true };
  }
  if (error instanceof Error) {
    const names = ['DataError', 'NotSupportedError', 'EncodingError', 'NetworkError', 'AbortError'];
    const name = names.includes(error.name) ? error.name : 'EncodingError';
    return { name, message: error.message, fatal: false };
  }
  return { name: 'EncodingError', message: String(error), fatal: false };
}

export { glue };
