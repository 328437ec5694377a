/**
 * kvm-bench/: a computer with KVM on a computer without. QEMU's software emulation has AMD's virtualization with nested
 * paging; below it runs Debian's kernel with `kvm-amd` over this computer's own files (read-only, changes in memory), without
 * any network but loopback. Slow, but the drivers, the hypervisors and the guests inside are the real ones.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BenchParts } from './parts.ts';

/** In Debian's package qemu-system-common. */
const VIRTIOFSD = '/usr/lib/qemu/virtiofsd';

/** Of the outer machine. Seen with QEMU 7.2 and two: guests that did not go on, and a kernel that broke; see docs/drivers.md. */
const PROCESSORS = 1;

/**
 * How often the outer machine gets an interrupt from outside. QEMU 7.2 marks an interrupt for a processor with `|=` while that processor, at the
 * start of a guest that waits for one, does the same without QEMU's lock (helper_vmrun of target/i386/tcg/sysemu/svm_helper.c): once in a while
 * the mark is lost, and with it the interrupt, also that of the kernel's own timer. The next one finds both.
 */
const BEAT_MS = 500;

/** What the outer machine runs: `argv` in `cwd`; then the bytes of `report` come out. */
export interface Plan {
  argv: readonly string[];
  cwd: string;
  env: Record<string, string>;
  report: string;
  timeoutMs: number;
}

export interface Outcome {
  /** Everything that was printed. */
  console: string;
  /** Contents of `plan.report`; empty when it was not written. */
  report: string;
  /** It did not end by itself in time, or was aborted. */
  late: boolean;
}

/** Names of what this computer lacks for the bench; undefined: nothing. */
export function lackingForBench(): string | undefined {
  if (process.getuid?.() !== 0) return 'root';
  if (process.arch !== 'x64') return 'an x64 processor';
  const files = ['/usr/bin/qemu-system-x86_64', VIRTIOFSD];
  const missing = files.filter((file) => !existsSync(file));
  return missing.length === 0 ? undefined : `${missing.join(', ')} (package qemu-system-x86)`;
}

/** Boots it, runs the plan and powers it off; `onText` gets the console as it comes. Nothing of it is left afterwards. */
export async function runOuter(options: {
  parts: BenchParts;
  plan: Plan;
  memoryMiB: number;
  onText: (text: string) => void;
  signal: AbortSignal;
}): Promise<Outcome> {
  const { parts, plan, memoryMiB, onText, signal } = options;
  await using undo = new AsyncDisposableStack();
  const folder = await mkdtemp(path.join(tmpdir(), 'polydev-bench-'));
  undo.defer(() => rm(folder, { recursive: true, force: true }));
  const at = (name: string): string => path.join(folder, name);
  await writeFile(at('plan.json'), JSON.stringify(plan));

  const start = (argv: readonly [string, ...string[]], output: 'pipe' | 'ignore') => {
    const [program, ...words] = argv;
    // Should this process die, the kernel ends them.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', program, ...words], {
      stdio: ['ignore', output, output],
    });
    child.on('error', () => undefined);
    undo.defer(async () => {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    });
    return child;
  };
  const socket = at('files.sock');
  start([VIRTIOFSD, `--socket-path=${socket}`, '-o', 'source=/,cache=always,sandbox=chroot'], 'ignore');
  for (let tries = 0; !existsSync(socket); tries++) {
    if (tries > 100) throw new Error('virtiofsd does not start');
    await sleep(100, undefined, { signal });
  }
  const append = [
    // The clock of the emulated computer is told, not measured: measuring fails on a busy one. Warnings are printed, and a
    // kernel that is broken ends at once.
    'console=ttyS0 quiet loglevel=5 oops=panic panic=-1 tsc=reliable mitigations=off nokaslr',
    `bench.parts=${parts.folder} bench.node=${process.execPath}`,
    `bench.inside=${path.join(import.meta.dirname, 'inside.ts')} bench.plan=${at('plan.json')}`,
  ].join(' ');
  const qemu = start(
    [
      'qemu-system-x86_64',
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...['-machine', 'q35,memory-backend=memory', '-accel', 'tcg,thread=multi,tb-size=512'],
      ...['-cpu', 'EPYC,+svm,+npt', '-smp', String(PROCESSORS), '-m', `${memoryMiB}M`],
      ...['-object', `memory-backend-memfd,id=memory,size=${memoryMiB}M,share=on`],
      ...['-kernel', parts.kernel, '-initrd', parts.initrd, '-append', append],
      ...[
        '-chardev',
        `socket,id=files,path=${socket}`,
        '-device',
        // Every answer of its server is told, not only the first since it was asked to tell.
        'vhost-user-fs-pci,chardev=files,tag=host,event_idx=off',
      ],
      ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
      ...['-device', 'virtio-serial-pci,event_idx=off', '-chardev', `file,id=report,path=${at('report')}`],
      ...['-device', 'virtserialport,chardev=report,name=report'],
      ...['-chardev', `socket,id=beat,path=${at('beat.sock')},server=on,wait=off`],
      ...['-device', 'virtserialport,chardev=beat,name=beat'],
      ...['-device', 'virtio-rng-pci'],
    ],
    'pipe',
  );
  undo.use(beatInto(at('beat.sock')));
  let text = '';
  const take = (chunk: string): void => {
    text += chunk;
    onText(chunk);
  };
  qemu.stdout?.setEncoding('utf8').on('data', take);
  qemu.stderr?.setEncoding('utf8').on('data', take);
  const limit = AbortSignal.any([signal, AbortSignal.timeout(plan.timeoutMs)]);
  const ended = await once(qemu, 'close', { signal: limit }).then(
    () => true,
    () => false,
  );
  return { console: text, report: await readFile(at('report'), 'utf8').catch(() => ''), late: !ended };
}

/** Sends a byte now and then, as soon as somebody listens at `socket`. */
function beatInto(socket: string): Disposable {
  let to: Socket | undefined;
  const beat = (): void => {
    if (to === undefined) {
      const made = connect(socket);
      made.on('error', () => undefined);
      made.once('close', () => {
        to = undefined;
      });
      to = made;
    } else if (!to.connecting && to.writableLength === 0) {
      to.write('.');
    }
  };
  const beats = setInterval(beat, BEAT_MS);
  return {
    [Symbol.dispose]: () => {
      clearInterval(beats);
      to?.destroy();
    },
  };
}
