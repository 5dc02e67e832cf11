// SPDX-License-Identifier: MPL-2.0
/** node serve.mjs CLIPS [--port N] [--live 'ELEMENTS']: serves the built demo on this machine. */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { serve } from './server/serve.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { port: { type: 'string', default: '8080' }, live: { type: 'string' } },
});
const clips = positionals[0];
if (!clips) throw new Error("usage: node serve.mjs CLIPS [--port N] [--live 'ELEMENTS']");
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const server = await serve({
  mounts: { '/clip/': clips, '/nnv/': here('../dist/'), '/': here('dist/') },
  port: Number(values.port),
  liveSource: values.live,
});
console.log(`http://localhost:${server.address().port}/`);
