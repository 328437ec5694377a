/** A build that never ends, in the cache that is its argument; prints the pid (as this host counts) of what it runs confined. */
import { mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stockArchives } from '../archives.ts';
import { cacheFiles } from '../manifest.ts';
import { openSandbox } from '../sandbox.ts';

const cacheDir = process.argv[2] ?? '';
const signal = AbortSignal.timeout(60_000);
const folder = cacheFiles(cacheDir).tmpDir;
await using sandbox = await openSandbox({
  folder,
  sharedFolder: path.join(cacheDir, 'shared'),
  signal,
  onFallback: (why) => {
    throw new Error(why);
  },
});
const root = path.join(folder, 'base', 'root');
await mkdir(root, { recursive: true });
await sandbox.give([root]);
const stock = await stockArchives(cacheDir, sandbox);
const script =
  'mkdir "$1/etc" && touch "$1/etc/file" "$2/fetched_1_all.deb" && echo ready && exec sleep 4711';
const running = sandbox.run(['sh', '-ec', script, 'sh', root, stock], {
  what: 'the step',
  deadline: 60_000,
  signal,
  onLine: () => void announce(),
});

/** The confined process is found by its arguments, among those that run as another root. */
async function announce(): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const [command, map] = await Promise.all(
        ['cmdline', 'uid_map'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')),
      );
      if (command === 'sleep\x004711\0' && !map?.includes('4294967295')) {
        console.log(pid);
        return;
      }
    }
    await sleep(50);
  }
}
await running;
