/** The command line of a machine's hypervisor. Nothing here runs anything. */
import { readFileSync } from 'node:fs';
import type { Limits, MachineKind } from '../../../protocol/machine.ts';
import { guestArguments, KERNEL_CONSOLE } from '../vm/arguments.ts';

export type Accelerator = 'tcg' | 'kvm';

/** Descriptors the hypervisor inherits: it opens no file by a path, so it needs no right to any. */
export interface InheritedFiles {
  kernel: number;
  initrd: number;
  /** Read-only layers, top first. */
  layers: readonly number[];
  disk: number;
  /** The disk below the private one, which takes only what is written then. */
  base?: number;
  config: number;
  console: number;
  /** Listening sockets. */
  qmp: number;
  agent: number;
  tap: number;
  /** A saved guest to go on with, instead of a start. */
  saved?: number;
  /** Memory as a file: `own`, what the guest writes goes there; otherwise it begins with what is there, and the rest comes over QMP. */
  memory?: { descriptor: number; own: boolean };
}

export interface HypervisorPlan {
  accelerator: Accelerator;
  limits: Limits;
  kind: MachineKind;
  hostname: string;
  mac: string;
  files: InheritedFiles;
}

export const AGENT_PORT_NAME = 'org.polydev.agent';
/**
 * Memory for translated code, taken as it is needed; kvm has none. When it is full everything is translated anew: with 256 a browser
 * machine did that every 12 s of processor time, and half of its work was translating.
 */
export const TRANSLATION_MIB = 1024;

/**
 * Everything that is emulated but what makes it slow. erms: copying byte by byte would be the fastest way then. pku: every change of these keys,
 * which Chromium's JavaScript makes all the time, forgets all pages. la57: five levels of page tables. avx and what needs it: emulated call by call.
 */
export const EMULATED_PROCESSOR = 'max,-erms,-pku,-la57,-avx,-avx2,-fma,-f16c';

/**
 * What the kernel would have to measure, in kHz: under software emulation on a busy host its own measurement fails in some
 * boots, and the kernel then hangs for ever. It has no other good clock, so it must not give this one up either: time would
 * lag behind with every timer interrupt that comes late. Undefined when the host does not tell.
 */
export function clockKhz(cpuinfo = readFileSync('/proc/cpuinfo', 'utf8')): number | undefined {
  const bogomips = /^bogomips\s*:\s*([\d.]+)/im.exec(cpuinfo)?.[1];
  return bogomips === undefined ? undefined : Math.round(Number(bogomips) * 500);
}

/** Ticks a second of Debian's kernels (CONFIG_HZ): the second processor would measure how many loops fit into one, by waiting for several. */
const KERNEL_HZ = 250;

/**
 * Translated code is slow to start: guarding it against speculation guards nothing, and what the kernel tests of its own
 * ciphers and prepares for tracing takes a second that nobody needs.
 */
const SOFTWARE_ONLY = [
  'mitigations=off cryptomgr.notests',
  'initcall_blacklist=init_kprobe_trace,load_system_certificate_list',
  // How fast its timer runs is the one thing that the kernel must measure itself; see restart.ts.
  'apic=verbose edd=off',
] as const;

export const kernelArguments = (accelerator: Accelerator, more: readonly string[]): string => {
  const khz = accelerator === 'tcg' ? clockKhz() : undefined;
  return [
    `${KERNEL_CONSOLE} reboot=t`,
    ...(accelerator === 'tcg' ? [...SOFTWARE_ONLY] : []),
    ...(khz === undefined ? [] : [`tsc_early_khz=${khz} tsc=reliable lpj=${(khz * 1000) / KERNEL_HZ}`]),
    ...more,
  ].join(' ');
};

/** What every guest of ours has, also the smallest. */
export function baseArguments(accelerator: Accelerator, cpus: number, memoryMiB: number): string[] {
  return [
    'qemu-system-x86_64',
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...['-machine', 'microvm,pit=on,pic=on,rtc=on,acpi=on'],
    ...(accelerator === 'kvm'
      ? ['-accel', 'kvm', '-cpu', 'host']
      : ['-accel', `tcg,thread=multi,tb-size=${TRANSLATION_MIB}`, '-cpu', EMULATED_PROCESSOR]),
    ...['-smp', String(cpus), '-m', `${memoryMiB}M`],
  ];
}

const path = (descriptor: number): string => `/dev/fd/${descriptor}`;

function drive(serial: string, descriptor: number, options: string): string[] {
  return [
    ...['-drive', `id=${serial},if=none,format=raw,file=${path(descriptor)},file.locking=off,${options}`],
    ...['-device', `virtio-blk-device,drive=${serial},serial=${serial}`],
  ];
}

/** The private disk; of a copy, over the one of its template. */
function privateDrive({ disk, base }: InheritedFiles, kind: MachineKind): string[] {
  const cache = kind === 'browser' ? 'unsafe' : 'writeback';
  if (base === undefined) return drive('private', disk, `cache=${cache},discard=unmap`);
  const node = (descriptor: number): object => ({
    ...{ driver: 'file', filename: path(descriptor), locking: 'off', discard: 'unmap' },
    cache: { 'no-flush': cache === 'unsafe' },
  });
  const below = { driver: 'raw', 'read-only': true, file: { ...node(base), 'read-only': true } };
  const over = {
    driver: 'qcow2',
    'node-name': 'private',
    discard: 'unmap',
    file: node(disk),
    backing: below,
  };
  return [
    ...['-blockdev', JSON.stringify({ ...over, cache: { 'no-flush': cache === 'unsafe' } })],
    ...['-device', 'virtio-blk-device,drive=private,serial=private'],
  ];
}

/** What the machine's own memory is called by default: a saved guest goes on with either kind. */
const RAM = 'microvm.ram';

function memoryArguments(memory: InheritedFiles['memory'], memoryMiB: number): string[] {
  if (memory === undefined) return [];
  const file = `mem-path=${path(memory.descriptor)},share=${memory.own ? 'on' : 'off'}`;
  return [
    ...[
      '-object',
      `memory-backend-file,id=${RAM},size=${memoryMiB}M,${file},x-use-canonical-path-for-ramblock-id=off`,
    ],
    ...['-machine', `memory-backend=${RAM}`],
    ...(memory.own ? [] : ['-incoming', 'defer']),
  ];
}

export function hypervisorArguments(plan: HypervisorPlan): string[] {
  const { accelerator, limits, kind, hostname, mac, files } = plan;
  const append = kernelArguments(
    accelerator,
    guestArguments({ layers: files.layers.length, kind, hostname }),
  );
  return [
    ...baseArguments(accelerator, Math.ceil(limits.cpus), limits.memoryMiB),
    ...['-name', hostname],
    ...['-kernel', path(files.kernel), '-initrd', path(files.initrd), '-append', append],
    ...files.layers.flatMap((layer, index) => drive(`layer${index}`, layer, 'readonly=on')),
    ...privateDrive(files, kind),
    ...drive('config', files.config, 'readonly=on'),
    ...['-netdev', `tap,id=net,fd=${files.tap}`, '-device', `virtio-net-device,netdev=net,mac=${mac}`],
    ...['-device', 'virtio-rng-device'],
    ...['-chardev', `socket,id=agent,fd=${files.agent},server=on,wait=off`],
    ...['-device', 'virtio-serial-device,max_ports=4'],
    ...['-device', `virtserialport,chardev=agent,name=${AGENT_PORT_NAME}`],
    ...['-chardev', `socket,id=qmp,fd=${files.qmp},server=on,wait=off`, '-mon', 'chardev=qmp,mode=control'],
    ...['-chardev', `file,id=console,path=${path(files.console)}`, '-serial', 'chardev:console'],
    ...memoryArguments(files.memory, limits.memoryMiB),
    ...(files.saved === undefined ? [] : ['-incoming', `fd:${files.saved}`]),
  ];
}
