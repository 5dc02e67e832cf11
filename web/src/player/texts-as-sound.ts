// SPDX-License-Identifier: MPL-2.0
/**
 * mediabunny reads tracks of pictures and sound, and passes over tracks of text. To it, a text track
 * is shown as one of sound: then it finds the samples, their times and their edit list, in files
 * with and without fragments, through its own cache. It makes nothing of the samples themselves.
 */

/** `hdlr`, version and flags 0, nothing predefined, handler `text` or `sbtl`. */
const HEAD = [0x68, 0x64, 0x6c, 0x72, 0, 0, 0, 0, 0, 0, 0, 0];
const TEXTS = ['text', 'sbtl'].map((name) => Array.from(name, (c) => c.charCodeAt(0)));
const SOUND = Array.from('soun', (c) => c.charCodeAt(0));
const LENGTH = HEAD.length + SOUND.length;

/** `response` with its text tracks shown as sound. */
export function showTexts(response: Response): Response {
  const body = response.body?.pipeThrough(new TransformStream(new Shower()));
  const { status, statusText, headers } = response;
  const shown = new Response(body ?? null, { status, statusText, headers });
  // A response made here would say `default`, and mediabunny trusts lengths of `basic` ones alone.
  Object.defineProperty(shown, 'type', { value: response.type });
  return shown;
}

class Shower implements Transformer<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
  /** The end of what came, which may be the beginning of a handler. */
  #kept = new Uint8Array(0);

  transform(
    chunk: Uint8Array<ArrayBuffer>,
    controller: TransformStreamDefaultController<Uint8Array<ArrayBuffer>>,
  ): void {
    const bytes = new Uint8Array(this.#kept.length + chunk.length);
    bytes.set(this.#kept);
    bytes.set(chunk, this.#kept.length);
    patch(bytes);
    const whole = bytes.length - unfinished(bytes);
    this.#kept = bytes.slice(whole);
    if (whole > 0) controller.enqueue(bytes.subarray(0, whole));
  }

  flush(controller: TransformStreamDefaultController<Uint8Array<ArrayBuffer>>): void {
    if (this.#kept.length > 0) controller.enqueue(this.#kept);
  }
}

function patch(bytes: Uint8Array): void {
  let at = bytes.indexOf(0x68);
  while (at >= 0 && at + LENGTH <= bytes.length) {
    const name = at + HEAD.length;
    if (matches(bytes, at, HEAD) && TEXTS.some((text) => matches(bytes, name, text))) {
      bytes.set(SOUND, name);
    }
    at = bytes.indexOf(0x68, at + 1);
  }
}

/** How many bytes at the end may begin a handler. */
function unfinished(bytes: Uint8Array): number {
  for (let length = Math.min(LENGTH - 1, bytes.length); length > 0; length--) {
    const head = HEAD.slice(0, length);
    if (matches(bytes, bytes.length - length, head)) return length;
  }
  return 0;
}

function matches(bytes: Uint8Array, at: number, wanted: readonly number[]): boolean {
  return wanted.every((value, i) => bytes[at + i] === value);
}
