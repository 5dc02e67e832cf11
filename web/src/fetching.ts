/** Files from a server, with messages that say what is wrong with it. */

/** An error that becomes a `DOMException` of this name. */
export class PageError extends Error {
  constructor(name: string, message: string) {
    super(message);
    this.name = name;
  }
}

/** So long may a server send nothing before it is given up, in ms. */
const STALL = 30_000;

export interface FetchOptions {
  /** What the file is, for messages. */
  readonly what: string;
  /** Longer files are refused. */
  readonly limit: number;
  /** What it means where the server has no such file; else that is an error of the network. */
  readonly missing?: string;
  readonly signal?: AbortSignal | undefined;
  /** Called when something has come. */
  readonly progress?: (() => void) | undefined;
}

/**
 * Fetches a whole file.
 *
 * @throws PageError named NetworkError where it cannot be had, or a web page comes in its place;
 * NotSupportedError where it is `missing`; AbortError where `signal` says so.
 */
export async function fetchFile(url: URL, options: FetchOptions): Promise<Uint8Array<ArrayBuffer>> {
  const { what, limit, missing, signal, progress } = options;
  const stalled = new AbortController();
  let timer = setTimeout(() => stalled.abort(), STALL);
  // Older browsers have no AbortSignal.any.
  const forward = () => stalled.abort();
  signal?.addEventListener('abort', forward);
  const fail = (why: string) => new PageError('NetworkError', `${what} (${url.href}): ${why}`);
  try {
    const response = await fetch(url, { signal: stalled.signal });
    if (response.status === 404 && missing) throw new PageError('NotSupportedError', missing);
    if (!response.ok) {
      throw fail(`the server answers ${response.status} ${response.statusText}`.trim());
    }
    const parts: Uint8Array[] = [];
    let length = 0;
    const reader = response.body?.getReader();
    for (;;) {
      const part = await reader?.read();
      if (!part || part.done) break;
      clearTimeout(timer);
      timer = setTimeout(() => stalled.abort(), STALL);
      progress?.();
      parts.push(part.value);
      length += part.value.length;
      if (length > limit) {
        throw fail(`it has more than ${limit} bytes; this is another file`);
      }
    }
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    const type = response.headers.get('content-type') ?? '';
    if (type.includes('text/html') || isMarkup(bytes)) {
      throw fail('the server sends a web page in its place; put the file there');
    }
    return bytes;
  } catch (error) {
    if (error instanceof PageError) throw error;
    if (signal?.aborted) throw new PageError('AbortError', `${what}: no longer wanted`);
    if (stalled.signal.aborted) {
      throw fail(`the server has sent nothing for ${STALL / 1000} s; try again`);
    }
    throw fail(`it cannot be fetched (${error instanceof Error ? error.message : String(error)})`);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', forward);
  }
}

function isMarkup(bytes: Uint8Array): boolean {
  const begin = new TextDecoder().decode(bytes.subarray(0, 64)).trimStart().toLowerCase();
  return begin.startsWith('<!doctype') || begin.startsWith('<html');
}
