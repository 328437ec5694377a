import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { expect, it } from 'vitest';
import { endLeftovers, findLeftovers } from './leftovers.ts';
import { readSettings } from './settings.ts';

const account = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
const output = { say: () => undefined, progress: () => undefined, result: () => undefined };
const settings = { ...readSettings({}), runDir: `/run/polydev/leftovers-${process.pid}` };

/** A process whose arguments name the instance's host configuration. */
async function child(program: string) {
  const started = spawn(
    process.execPath,
    ['--eval', program, '--', path.join(settings.runDir, 'host.json')],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await once(started.stdout, 'data');
  return started;
}

it('asks a host service of a killed run to stop, and waits for its end', async () => {
  const slow = await child(
    "process.on('SIGTERM', () => setTimeout(() => process.exit(), 300)); setInterval(() => {}, 1000); console.log(1)",
  );
  expect(findLeftovers(settings.runDir, account)).toEqual([slow.pid]);
  await endLeftovers(settings, account, { output, signal: AbortSignal.timeout(20_000) });
  expect(findLeftovers(settings.runDir, account)).toEqual([]);
});

it('names one that does not stop', async () => {
  const deaf = await child("process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log(1)");
  try {
    await expect(
      endLeftovers(settings, account, { output, signal: AbortSignal.timeout(20_000), deadlineMs: 300 }),
    ).rejects.toMatchObject({ code: 'already_running', message: expect.stringContaining(String(deaf.pid)) });
  } finally {
    deaf.kill('SIGKILL');
  }
});
