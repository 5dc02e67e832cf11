// SPDX-License-Identifier: MPL-2.0
/**
 * Bytes of a file by ranges, from a server or from a file on disk, behind one `fetch`; and what the
 * first bytes say about the file.
 */
import { MediaErrorCode, partial, PlayerError } from './errors.js';

/** Seconds before the second, third … try of a request that broke off. Then it is an error. */
const RETRY_DELAYS = [0.25, 1, 2];

/** Bytes at the beginning that tell what a file is. */
const SNIFFED = 16;

/** Where a file comes from. */
export interface ByteSource {
  /** Address to resolve against and to name in messages. */
  readonly url: string;
  /** As `fetch`, for this file alone; rejects with a `PlayerError` where a retry is of no use. */
  readonly fetch: (input: RequestInfo | URL, init?: RequestInit) => Promise<Response>;
}

/** What the beginning of a file says. */
export interface Sniffed {
  readonly kind: 'mp4' | 'nnv';
  /** Bytes of the whole file, where the server says so. */
  readonly size: number | null;
  /** Whether parts of it can be asked for. */
  readonly ranges: boolean;
}

/** How long to wait before the next try; `null` where another try is of no use. */
export function retryDelay(previousAttempts: number, error: unknown): number | null {
  if (error instanceof PlayerError) return null;
  return RETRY_DELAYS[previousAttempts - 1] ?? null;
}

/** A file on a server. `credentials` as in `fetch`. */
export function httpSource(url: string, credentials: RequestCredentials): ByteSource {
  return {
    url,
    fetch: async (input, init) => {
      const response = await fetch(input, { ...init, credentials });
      if (response.status === 416) {
        throw new PlayerError(
          MediaErrorCode.NETWORK,
          `${url} is shorter on the server than it says itself: it was cut. Upload it again.`,
        );
      }
      if (!response.ok)
        throw new PlayerError(MediaErrorCode.SRC_NOT_SUPPORTED, status(url, response));
      return response;
    },
  };
}

/** A file on disk, or bytes in memory. */
export function blobSource(blob: Blob): ByteSource {
  return {
    url: blob instanceof File ? blob.name : 'file',
    fetch: async (_input, init) => {
      const range = /^bytes=(\d+)-(\d*)$/.exec(new Headers(init?.headers).get('Range') ?? '');
      const start = Number(range?.[1] ?? 0);
      const end = Math.min(range?.[2] ? Number(range[2]) + 1 : blob.size, blob.size);
      const headers = { 'Content-Range': `bytes ${start}-${end - 1}/${blob.size}` };
      return new Response(blob.slice(start, end).stream(), { status: 206, headers });
    },
  };
}

function status(url: string, response: Response): string {
  const said = `${response.status} ${response.statusText}`.trim();
  switch (response.status) {
    case 404:
    case 410:
      return `There is no ${url} on the server (${said}). Check the address.`;
    case 401:
    case 403:
      return `The server does not let you read ${url} (${said}). Log in there, or ask its owner.`;
    default:
      return response.status >= 500
        ? `The server failed to send ${url} (${said}). Try again later.`
        : `The server did not send ${url} (${said}).`;
  }
}

/** Reads the first bytes of a file. Rejects with a `PlayerError` if it is none of ours. */
export async function sniff(source: ByteSource, signal: AbortSignal): Promise<Sniffed> {
  const init = { signal, headers: { Range: `bytes=0-${SNIFFED - 1}` } };
  let response: Response;
  try {
    response = await source.fetch(source.url, init);
  } catch (error) {
    if (error instanceof PlayerError || signal.aborted) throw error;
    throw new PlayerError(
      MediaErrorCode.NETWORK,
      `${source.url} cannot be reached. Check the connection; a file of another site also needs ` +
        "that site's permission (CORS).",
      { cause: error },
    );
  }
  const start = await firstBytes(response, SNIFFED).catch((error: unknown) => {
    throw partial(source.url, error);
  });
  const total = /\/(\d+)$/.exec(response.headers.get('Content-Range') ?? '')?.[1];
  const length = response.status === 200 ? response.headers.get('Content-Length') : null;
  const size = total ?? length;
  const about = { size: size ? Number(size) : null, ranges: response.status === 206 };
  if (ascii(start, 4, 8) === 'ftyp') return { kind: 'mp4', ...about };
  if (start[0] === 0x8e && ascii(start, 1, 3) === 'NV') return { kind: 'nnv', ...about };
  const type = response.headers.get('Content-Type') ?? '';
  const page = /^\s*</.test(ascii(start, 0, start.length)) || /^text\/html\b/.test(type);
  throw new PlayerError(
    MediaErrorCode.SRC_NOT_SUPPORTED,
    start.length === 0
      ? `${source.url} is empty.`
      : page
        ? `${source.url} is a page (HTML), not a video. The address is likely wrong, or the server ` +
          'sends its start page in place of files that it does not have.'
        : `${source.url} is neither MP4 nor an NNV stream. nnvmp4mux or nnvenc make such files.`,
  );
}

async function firstBytes(response: Response, count: number): Promise<Uint8Array> {
  const out = new Uint8Array(count);
  let filled = 0;
  const reader = response.body?.getReader();
  if (!reader) return out.subarray(0, 0);
  while (filled < count) {
    const { done, value } = await reader.read();
    if (done) break;
    const part = value.subarray(0, count - filled);
    out.set(part, filled);
    filled += part.length;
  }
  // A server without ranges would send the whole file.
  reader.cancel().catch(() => undefined);
  return out.subarray(0, filled);
}

function ascii(bytes: Uint8Array, from: number, to: number): string {
  return String.fromCharCode(...bytes.subarray(from, to));
}
