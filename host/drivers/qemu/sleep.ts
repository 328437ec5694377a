/** Saves a guest to a file. The hypervisor may open nothing, so it writes to a socket of ours, and we into the file. */
import { createHash } from 'node:crypto';
import { createWriteStream, readFileSync } from 'node:fs';
import { chmod, chown, mkdir, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { PolydevError } from '../../../protocol/errors.ts';
import { run } from '../../system/command.ts';
import { type Accelerator, EMULATED_PROCESSOR } from './args.ts';
import { Qmp } from './qmp.ts';
import type { Maker } from './state.ts';

const QMP_MS = 20_000;
const POLL_MS = 10;

const Migration = z.object({ status: z.string().optional(), 'error-desc': z.string().optional() });

/** Of this computer: with hardware virtualization the guest sees its very processor. */
function processorOf(accelerator: Accelerator): string {
  if (accelerator === 'tcg') return EMULATED_PROCESSOR;
  const cpuinfo = readFileSync('/proc/cpuinfo', 'utf8');
  const field = (name: string): string => new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(cpuinfo)?.[1] ?? '';
  const flags = createHash('sha256').update(field('flags')).digest('hex').slice(0, 12);
  return `${field('model name')} ${flags}`;
}

/** What a guest that is saved here needs to go on. `kernel`: path of the file that guests are started with now. */
export async function makerHere(
  accelerator: Accelerator,
  kernel: string,
  signal: AbortSignal,
): Promise<Maker> {
  const said = await run(['qemu-system-x86_64', '--version'], { signal, timeoutMs: QMP_MS });
  return {
    hypervisor: said.split('\n')[0]?.trim() ?? '',
    processor: processorOf(accelerator),
    kernel: basename(dirname(kernel)),
  };
}

/** Throws `machine_resume_failed` naming what is different. */
export function requireSameMaker(saved: Maker, now: Maker): void {
  for (const part of ['hypervisor', 'processor', 'kernel'] as const) {
    if (saved[part] === now[part]) continue;
    throw new PolydevError(
      'machine_resume_failed',
      `the guest was saved with another ${part}: ${saved[part]}; here it is ${now[part]}`,
    );
  }
}

/**
 * Stops the guest and writes memory and devices of it to `file`; afterwards the hypervisor has no use but to be ended. When that
 * fails the guest goes on, and the error is thrown. `socket`: a path below a folder that `owner` can pass through.
 * `devicesOnly`: memory that is a file of its own is left out.
 */
export async function saveGuest(
  qmp: Qmp,
  to: { file: string; socket: string; owner: number; devicesOnly?: boolean },
  signal: AbortSignal,
): Promise<void> {
  const { file, socket, owner } = to;
  await rm(socket, { force: true });
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  const connection = Promise.withResolvers<Socket>();
  const server = createServer(connection.resolve);
  server.once('error', connection.reject);
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  await chown(socket, owner, owner);
  await chmod(socket, 0o600);
  const limit = new AbortController();
  const either = AbortSignal.any([signal, limit.signal]);
  either.addEventListener('abort', () => connection.reject(either.reason as Error), { once: true });
  const written = connection.promise.then((from) =>
    pipeline(from, createWriteStream(file, { mode: 0o600, flush: true }), { signal: either }),
  );
  let unwritten: unknown;
  written.catch((error: unknown) => {
    unwritten = error;
  });
  try {
    await qmp.execute('stop', {}, QMP_MS);
    // No guest runs meanwhile that could be slowed down by it.
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 }, QMP_MS);
    await leaveSharedMemory(qmp, to.devicesOnly ?? false);
    await qmp.execute('migrate', { uri: `unix:${socket}` }, QMP_MS);
    for (;;) {
      either.throwIfAborted();
      const { status, 'error-desc': why } = Migration.parse(await qmp.execute('query-migrate', {}, QMP_MS));
      if (status === 'completed') break;
      // To the hypervisor a file that cannot be written, as on a full disk, is a peer that went away.
      if (status === 'failed' || status === 'cancelled') {
        throw unwritten ?? new Error(`saving: ${why ?? status}`);
      }
      await sleep(POLL_MS);
    }
    await written;
  } catch (error) {
    limit.abort(error);
    await qmp.execute('migrate_cancel', {}, QMP_MS).catch(() => undefined);
    await rm(file, { force: true });
    await qmp.execute('cont', {}, QMP_MS);
    throw error;
  } finally {
    server.close();
    await rm(socket, { force: true });
  }
}

/** Whether memory that is a file of its own is left out of what is saved or loaded. A hypervisor that loaded so would go on to save so. */
const leaveSharedMemory = (qmp: Qmp, state: boolean): Promise<unknown> =>
  qmp.execute(
    'migrate-set-capabilities',
    { capabilities: [{ capability: 'x-ignore-shared', state }] },
    QMP_MS,
  );

/**
 * Lets a guest that was loaded go on. Asked while it is still loading, the hypervisor would forget that it was asked. `devices`: the
 * hypervisor's descriptor of what is to be loaded first, beside memory that it has already.
 */
export async function continueGuest(
  qmpPath: string,
  devices: number | undefined,
  signal: AbortSignal,
): Promise<void> {
  using qmp = await Qmp.connect(qmpPath, QMP_MS);
  if (devices !== undefined) {
    await leaveSharedMemory(qmp, true);
    await qmp.execute('migrate-incoming', { uri: `fd:${devices}` }, QMP_MS);
  }
  const statusNow = async (): Promise<unknown> =>
    ((await qmp.execute('query-status', {}, QMP_MS)) as { status?: unknown }).status;
  while ((await statusNow()) === 'inmigrate') {
    signal.throwIfAborted();
    await sleep(POLL_MS);
  }
  await qmp.execute('cont', {}, QMP_MS);
}
