/** How the dashboard is bundled. `build.ts` uses it through Vite's API; nothing runs a Vite server in production. */
import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  plugins: [react()],
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    // noVNC uses top-level await; every browser that has `es2022` has it.
    target: 'es2022',
    // Inlined assets would be data: URLs, which the strict content security policy refuses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
