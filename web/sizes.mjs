// Sizes of what a page downloads: `node sizes.mjs DIST`.
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const dist = process.argv[2];
const files = (folder) => readdirSync(folder).sort().flatMap((name) => {
  const path = join(folder, name);
  return statSync(path).isDirectory() ? files(path) : [path];
});
const groups = new Map();
for (const path of files(dist)) {
  const name = relative(dist, path);
  if (name.endsWith('.d.ts')) continue;
  const group = name.match(/^bundles\/[^/]+/)?.[0]
    ?? (name.endsWith('.wasm') ? 'decoder (wasm)' : name.startsWith('player') ? 'player' : 'JavaScript');
  const bytes = readFileSync(path);
  const brotli = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length, [constants.BROTLI_PARAM_QUALITY]: 9 },
  });
  const sum = groups.get(group) ?? [0, 0, 0];
  [bytes, gzipSync(bytes), brotli].forEach((b, i) => { sum[i] += b.length; });
  groups.set(group, sum);
}
const kib = (n) => `${Math.round(n / 1024)}`.padStart(8);
console.log(`${'KiB'.padEnd(20)}     raw    gzip  brotli`);
for (const [group, sizes] of groups) console.log(group.padEnd(20) + sizes.map(kib).join(''));
