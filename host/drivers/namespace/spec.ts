/** The OCI runtime configuration of a machine. */
import { readFileSync } from 'node:fs';
import type { Limits } from '../../../protocol/machine.ts';
import { ID_RANGE } from '../../system/ids.ts';
import { seccompFilter } from './seccomp.ts';

/**
 * What root inside a machine may do to its own files and processes. Nothing reaches beyond: the rights are those of a
 * user namespace, the network namespace belongs to the host, mounts are closed by the system call filter.
 */
const CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_NET_BIND_SERVICE',
  'CAP_SETGID',
  'CAP_SETUID',
];

const MASKED = [
  ...['acpi', 'asound', 'kcore', 'keys', 'latency_stats', 'timer_list', 'timer_stats', 'sched_debug', 'scsi'],
  ...[
    'interrupts',
    'kallsyms',
    'kpagecgroup',
    'kpagecount',
    'kpageflags',
    'modules',
    'vmallocinfo',
    'slabinfo',
  ],
].map((name) => `/proc/${name}`);
const READ_ONLY = ['bus', 'fs', 'irq', 'sys', 'sysrq-trigger'].map((name) => `/proc/${name}`);

export interface ContainerPlan {
  rootfs: string;
  argv: readonly string[];
  hostname: string;
  limits: Limits;
  /** First host id of the machine's range. */
  firstId: number;
  /** Path of the prepared network namespace. */
  netns: string;
  /** Path below each cgroup hierarchy. */
  cgroup: string;
  /** Host folder that appears read-only at /run/polydev. */
  configFolder: string;
}

/** What a browser wants, or less where this process itself may not have as many (no right to raise a hard limit). */
function openFilesLimit(): number {
  const own = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return Math.min(65_536, own === undefined ? Number.POSITIVE_INFINITY : Number(own));
}

const tmpfs = (destination: string, ...options: string[]) => ({
  destination,
  type: 'tmpfs',
  source: 'tmpfs',
  options: ['nosuid', 'nodev', ...options],
});

const CPU_PERIOD_US = 100_000;

export function containerSpec(plan: ContainerPlan): object {
  const { limits, firstId } = plan;
  const mapping = [{ containerID: 0, hostID: firstId, size: ID_RANGE }];
  const openFiles = openFilesLimit();
  const memory = limits.memoryMiB * 1024 * 1024;
  return {
    ociVersion: '1.0.2',
    hostname: plan.hostname,
    root: { path: plan.rootfs, readonly: false },
    process: {
      terminal: false,
      user: { uid: 0, gid: 0, umask: 0o022 },
      cwd: '/',
      args: plan.argv,
      env: [
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        'HOME=/root',
        'LANG=C.UTF-8',
      ],
      noNewPrivileges: true,
      capabilities: {
        bounding: CAPABILITIES,
        effective: CAPABILITIES,
        permitted: CAPABILITIES,
        inheritable: [],
        ambient: [],
      },
      rlimits: [
        { type: 'RLIMIT_NOFILE', soft: openFiles, hard: openFiles },
        { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      ],
      // The host service must outlive its machines when memory is short.
      oomScoreAdj: 300,
    },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'strictatime', 'mode=755', 'size=64k'],
      },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
      },
      tmpfs('/dev/shm', 'noexec', 'mode=1777', 'size=1g'),
      tmpfs('/tmp', 'mode=1777', 'size=2g'),
      tmpfs('/run', 'mode=755', 'size=256m'),
      {
        destination: '/run/polydev',
        type: 'bind',
        source: plan.configFolder,
        options: ['bind', 'ro', 'nosuid', 'nodev', 'noexec'],
      },
    ],
    linux: {
      namespaces: [
        ...['pid', 'mount', 'uts', 'ipc', 'user', 'cgroup'].map((type) => ({ type })),
        { type: 'network', path: plan.netns },
      ],
      uidMappings: mapping,
      gidMappings: mapping,
      cgroupsPath: plan.cgroup,
      resources: {
        devices: [{ allow: false, access: 'rwm' }],
        // Swap is part of the limit: a machine cannot make the host swap.
        memory: { limit: memory, swap: memory },
        pids: { limit: limits.pids },
        cpu: { period: CPU_PERIOD_US, quota: Math.round(limits.cpus * CPU_PERIOD_US) },
      },
      seccomp: seccompFilter(),
      maskedPaths: MASKED,
      readonlyPaths: READ_ONLY,
    },
  };
}
