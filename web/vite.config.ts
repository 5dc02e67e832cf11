import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const entries: Record<string, string> = {
  index: at('src/index.ts'),
  // A module of its own: pages and bundlers find it beside `index.js` by `new URL`.
  worker: at('src/worker.ts'),
};
if (existsSync(at('src/player/index.ts'))) entries['player'] = at('src/player/index.ts');

export default defineConfig({
  base: './',
  // What scripts/web-build.sh puts into dist (wasm, bundles) stays. No folders for chunks: addresses of
  // other files are relative to the module that names them.
  build: {
    outDir: 'dist',
    emptyOutDir: false,
    target: 'es2022',
    sourcemap: false,
    assetsInlineLimit: 0,
    lib: { entry: entries, formats: ['es'] },
    rollupOptions: {
      output: { entryFileNames: '[name].js', chunkFileNames: '[name]-[hash].js' },
    },
  },
});
