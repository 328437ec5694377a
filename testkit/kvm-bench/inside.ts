/** Runs inside the outer machine: `node inside.ts <plan>`; the report goes out through a port of its own. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, createWriteStream, readdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';

const Plan = z.object({
  argv: z.array(z.string()),
  cwd: z.string(),
  env: z.record(z.string(), z.string()),
  report: z.string(),
});

const PORTS = '/sys/class/virtio-ports';
/**
 * Seen with QEMU 7.2: nothing ran any more in an idle emulated computer, until the interrupt was given once more by which the server of its
 * files says that it has answered. So a file is opened now and then: the interrupt of its answer tells of all answers.
 */
const HEARTBEAT_MS = 1000;

const plan = Plan.parse(JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')));
setInterval(() => void beat(), HEARTBEAT_MS).unref();
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
const name = readdirSync(PORTS).find(
  (port) => readFileSync(path.join(PORTS, port, 'name'), 'utf8').trim() === 'report',
);
if (name !== undefined) {
  await pipeline(createReadStream(plan.report), createWriteStream(path.join('/dev', name)));
}

async function beat(): Promise<void> {
  // Opening is asked of the server, also of a file that is in memory.
  const file = await open(import.meta.filename).catch(() => undefined);
  await file?.close();
}

/** What the kernel said of programs that it ended, and of itself: the console has its warnings only. */
function tellOfEnded(): void {
  const said = spawnSync('dmesg', { encoding: 'utf8', timeout: 60_000 }).stdout ?? '';
  const telling = said
    .split('\n')
    .filter((line) => /segfault|trap|protection fault|bad frame|[Kk]illed/.test(line));
  for (const line of telling.slice(-20)) console.log(`bench: kernel: ${line}`);
}
