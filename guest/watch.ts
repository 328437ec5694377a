/** Watches directories without polling them: inotify, plus a slow second look for what it does not report. */
import { type FSWatcher, watch } from 'node:fs';

/**
 * Calls `onChange` after changes in `directory` (which need not exist yet: it is looked for again every `recheckMs`)
 * and every `recheckMs`. Calls never overlap with themselves: `onChange` is synchronous. Returns the way to stop.
 */
export function watchDirectory(directory: string, recheckMs: number, onChange: () => void): () => void {
  let watcher: FSWatcher | undefined;
  const attach = () => {
    if (watcher !== undefined) return;
    try {
      watcher = watch(directory, { persistent: false }, () => onChange());
      watcher.on('error', () => {
        watcher?.close();
        watcher = undefined;
      });
    } catch {
      watcher = undefined;
    }
  };
  attach();
  const timer = setInterval(() => {
    attach();
    onChange();
  }, recheckMs);
  timer.unref();
  return () => {
    clearInterval(timer);
    watcher?.close();
    watcher = undefined;
  };
}
