// SPDX-License-Identifier: MPL-2.0
/** Serves files with what pages with threads need, under a strict Content-Security-Policy. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize, sep } from 'node:path';
import { WebSocketServer } from 'ws';
import { sendLive } from './live.mjs';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.mp4': 'video/mp4',
  '.nnv': 'video/x-nnv',
};

/** Only what comes from here runs; WebAssembly may. */
export const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'";

const HEADERS = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-cache',
};

/** What lets a page share memory between its Workers. */
const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
};

/**
 * A server of the folders `mounts` ({"/": folder, "/clip/": folder}, longest prefix first).
 * `isolated: false` leaves out the headers for threads; `intercept(request, response)` may answer
 * itself by returning true; `liveSource`: see `sendLive`.
 */
export function serve({
  mounts,
  port = 0,
  host = '127.0.0.1',
  isolated = true,
  intercept,
  liveSource,
}) {
  const prefixes = Object.keys(mounts).sort((a, b) => b.length - a.length);
  const headers = isolated ? { ...HEADERS, ...ISOLATION } : HEADERS;
  const server = createServer((request, response) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    answer(request, response).catch((error) => {
      console.error(`${request.url}: ${error.message}`);
      response.destroy();
    });
  });

  async function answer(request, response) {
    if (await intercept?.(request, response)) return;
    if (request.method !== 'GET' && request.method !== 'HEAD') return end(response, 405);
    const path = pathOf(request.url);
    const prefix = path && prefixes.find((p) => path.startsWith(p));
    if (!prefix) return end(response, 404);
    const file = join(mounts[prefix], path.slice(prefix.length) || 'index.html');
    const info = await stat(file).catch(() => undefined);
    if (!info?.isFile()) return end(response, 404);
    sendFile(request, response, file, info.size);
  }

  const sockets = new WebSocketServer({ noServer: true, maxPayload: 1024 });
  server.on('upgrade', (request, socket, head) => {
    // Pages of others must not start pipelines here; programs without a page may.
    const { origin, host: self } = request.headers;
    const own = origin === undefined || origin === `http://${self}` || origin === `https://${self}`;
    if (pathOf(request.url) !== '/live' || !own) return socket.destroy();
    sockets.handleUpgrade(request, socket, head, (viewer) => {
      // One pipeline at a time: who comes later takes it.
      for (const other of sockets.clients) {
        if (other !== viewer) other.close(1000, 'Another page watches now');
      }
      sendLive(viewer, liveSource);
    });
  });
  server.on('close', () => {
    for (const viewer of sockets.clients) viewer.terminate();
  });
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(port, host, () => resolve(server));
  });
}

/** The path of an address, if it stays within what is served. */
function pathOf(url) {
  try {
    const path = normalize(decodeURIComponent(new URL(url, 'http://x').pathname));
    return path.includes('\0') || path.split(sep).includes('..') ? undefined : path;
  } catch {
    return undefined;
  }
}

/** Sends `file`, or the range that was asked for. */
export function sendFile(request, response, file, size) {
  response.setHeader('Content-Type', TYPES[extname(file)] ?? 'application/octet-stream');
  response.setHeader('Accept-Ranges', 'bytes');
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const start = range ? Number(range[1]) : 0;
  const last = range?.[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
  if (range && start > last) {
    response.setHeader('Content-Range', `bytes */${size}`);
    return end(response, 416);
  }
  if (range) response.setHeader('Content-Range', `bytes ${start}-${last}/${size}`);
  response.setHeader('Content-Length', last - start + 1);
  response.writeHead(range ? 206 : 200);
  if (request.method === 'HEAD' || size === 0) return response.end();
  const stream = createReadStream(file, { start, end: last });
  stream.on('error', () => response.destroy());
  response.on('close', () => stream.destroy());
  stream.pipe(response);
}

function end(response, status) {
  response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8' });
  response.end(`${status}\n`);
}
