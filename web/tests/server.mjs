// A static server for the tests: the built package, streams, and answers that servers should not
// give. Every page is under a strict Content-Security-Policy.
import { createServer } from 'node:http';
import { readFile, readdir } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const TYPES = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.wasm': 'application/wasm',
};
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'";
/** Where the parts of an address are in the repository. */
const MOUNTS = {
  nnv: 'web/dist', page: 'web/tests/page', conformance: 'tests/conformance', streams: 'web/tests/streams',
};
const PAGE = '<!doctype html><html lang="en"><title>nnv-web</title>'
  + '<script type="module" src="/page/harness.js"></script>';

async function content(path) {
  const [mount, ...rest] = normalize(path).split('/').filter(Boolean);
  if (!(mount in MOUNTS)) throw new Error('no such place');
  return readFile(join(root, MOUNTS[mount], ...rest));
}

/** The folder of a bundle's networks. */
async function folder(name) {
  const all = await readdir(join(root, MOUNTS.nnv, 'bundles'));
  return all.find((one) => one.startsWith(`${name}-`));
}

/**
 * Serves on a free port of the loopback. `isolated`: with the headers that allow
 * SharedArrayBuffer. `policy`: another Content-Security-Policy. `extra`: addresses to files of
 * other places.
 *
 * Below `/odd/WAY/` the files of `/nnv/` come spoilt: see `spoil`.
 */
export async function serve({ isolated = false, policy = POLICY, extra = {} } = {}) {
  const asked = [];
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    asked.push(pathname);
    const headers = { 'content-security-policy': policy, 'cache-control': 'no-store' };
    if (isolated) {
      headers['cross-origin-opener-policy'] = 'same-origin';
      headers['cross-origin-embedder-policy'] = 'require-corp';
    }
    try {
      if (pathname === '/') {
        response.writeHead(200, { ...headers, 'content-type': TYPES['.html'] }).end(PAGE);
        return;
      }
      const odd = pathname.match(/^\/odd\/([a-z-]+)\/(.*)$/);
      if (odd && (await spoil(odd[1], odd[2], response, headers))) return;
      const bytes = pathname in extra
        ? await readFile(extra[pathname]) : await content(odd ? `/nnv/${odd[2]}` : pathname);
      const type = TYPES[extname(pathname)] ?? 'application/octet-stream';
      response.writeHead(200, { ...headers, 'content-type': type }).end(bytes);
    } catch {
      response.writeHead(404, headers).end('not here');
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  return {
    url: `http://127.0.0.1:${port}/`,
    asked,
    close: () => new Promise((resolve) => {
      server.closeAllConnections();
      server.close(resolve);
    }),
  };
}

/** Answers in a wrong way; false where the right answer is to follow. */
async function spoil(way, path, response, headers) {
  const whole = (bytes, type = 'application/octet-stream') =>
    response.writeHead(200, { ...headers, 'content-type': type }).end(bytes);
  switch (way) {
    case 'html':
      whole('<!doctype html><title>App</title>', 'text/html');
      return true;
    case 'html-as-data':
      whole('<!doctype html><title>App</title>');
      return true;
    case 'error':
      response.writeHead(503, headers).end();
      return true;
    case 'cut': {
      if (!path.endsWith('key_synth.onnx')) return false;
      const bytes = await content(`/nnv/${path}`);
      response.writeHead(200, { ...headers, 'content-length': bytes.length });
      response.write(bytes.subarray(0, bytes.length / 2), () => response.socket?.destroy());
      return true;
    }
    case 'short': {
      if (!path.endsWith('tables.bin')) return false;
      const bytes = await content(`/nnv/${path}`);
      whole(bytes.subarray(0, bytes.length / 2));
      return true;
    }
    case 'flipped': {
      if (!path.endsWith('inter_synth.onnx')) return false;
      const bytes = await content(`/nnv/${path}`);
      bytes[bytes.length / 2 | 0] ^= 1;
      whole(bytes);
      return true;
    }
    case 'other':
      whole(await content(`/nnv/${path.replace(/realtime-\w+/, await folder('visual'))}`));
      return true;
    case 'no-worker':
      if (!path.endsWith('worker.js')) return false;
      response.writeHead(404, headers).end();
      return true;
    case 'no-wasm':
      if (!path.endsWith('.wasm')) return false;
      whole('<!doctype html><title>App</title>', 'text/html');
      return true;
    default:
      return false;
  }
}
