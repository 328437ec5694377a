/** Runs inside the outer machine: `node inside.ts <plan>`; the report goes out through a port of its own. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, createWriteStream, existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';

const Plan = z.object({
  argv: z.array(z.string()),
  cwd: z.string(),
  env: z.record(z.string(), z.string()),
  report: z.string(),
});

const PORTS = '/sys/class/virtio-ports';

const plan = Plan.parse(JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')));
await takeBeats();
console.log(`bench: kernel and files are up after ${readFileSync('/proc/uptime', 'utf8').split(' ')[0]} s`);
const [program = '', ...words] = plan.argv;
const child = spawn(program, words, {
  cwd: plan.cwd,
  env: { ...process.env, ...plan.env },
  stdio: ['ignore', 'inherit', 'inherit'],
});
const [code] = (await once(child, 'close')) as [number | null];
console.log(`bench: ended with ${code} after ${readFileSync('/proc/uptime', 'utf8').split(' ')[0]} s`);
if (code !== 0) tellOfEnded();
const name = portOf('report');
if (name !== undefined) {
  await pipeline(createReadStream(plan.report), createWriteStream(path.join('/dev', name)));
}
// Beats may be read for ever.
process.exit();

function portOf(name: string): string | undefined {
  return readdirSync(PORTS).find((port) => {
    const file = path.join(PORTS, port, 'name');
    return existsSync(file) && readFileSync(file, 'utf8').trim() === name;
  });
}

/** Takes what comes from outside (BEAT_MS in outer.ts): nobody needs it but the processor, for the interrupt. */
async function takeBeats(): Promise<void> {
  let port = portOf('beat');
  // The driver learns the names of ports a moment after it was loaded.
  for (let left = 100; port === undefined && left > 0; left--) {
    await sleep(100);
    port = portOf('beat');
  }
  if (port === undefined) throw new Error('no port "beat"');
  createReadStream(path.join('/dev', port)).resume();
}

/** What the kernel said of programs that it ended, and of itself: the console has its warnings only. */
function tellOfEnded(): void {
  const said = spawnSync('dmesg', { encoding: 'utf8', timeout: 60_000 }).stdout ?? '';
  const telling = said
    .split('\n')
    .filter((line) => /segfault|trap|protection fault|bad frame|[Kk]illed/.test(line));
  for (const line of telling.slice(-20)) console.log(`bench: kernel: ${line}`);
}
