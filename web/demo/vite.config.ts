import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  root: at('.'),
  base: './',
  worker: { format: 'es' },
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    target: 'es2022',
    // Nothing in line: the page runs under a strict Content-Security-Policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: [at('index.html'), at('player.html')],
      // The package as it is shipped; the server has it under /nnv/.
      external: ['nnv-web/player'],
      output: { paths: { 'nnv-web/player': '/nnv/player.js' } },
    },
  },
});
