/** What a machine's jailer and Firecracker are asked for. Nothing here runs anything. */
import type { Limits, MachineKind } from '../../../protocol/machine.ts';
import { KERNEL_CONSOLE } from '../vm/arguments.ts';
import type { Call } from './api.ts';
import { IN_JAIL } from './jail.ts';

export interface JailPlan {
  id: string;
  firecracker: string;
  jailer: string;
  uid: number;
  /** Folder above the jail; on a file system that allows devices and programs. */
  base: string;
  netns: string;
  /** Below the root of the control groups; the jailer makes one more level named `id`. */
  cgroup: string;
  cgroupVersion: 1 | 2;
  limits: { memoryBytes: number; cpus: number; pids: number };
}

const CPU_PERIOD_US = 100_000;

/** Limits as `file=value` of the control group's version. */
function cgroupWords({ limits, cgroupVersion }: JailPlan): string[] {
  const { memoryBytes, cpus, pids } = limits;
  const quota = Math.round(cpus * CPU_PERIOD_US);
  const words =
    cgroupVersion === 2
      ? [`memory.max=${memoryBytes}`, `cpu.max=${quota} ${CPU_PERIOD_US}`, `pids.max=${pids}`]
      : [
          `memory.limit_in_bytes=${memoryBytes}`,
          `cpu.cfs_period_us=${CPU_PERIOD_US}`,
          `cpu.cfs_quota_us=${quota}`,
          `pids.max=${pids}`,
        ];
  return words.flatMap((word) => ['--cgroup', word]);
}

export const jailerArguments = (plan: JailPlan): string[] => [
  plan.jailer,
  ...['--id', plan.id, '--exec-file', plan.firecracker],
  ...['--uid', String(plan.uid), '--gid', String(plan.uid)],
  ...['--chroot-base-dir', plan.base, '--netns', plan.netns],
  ...['--cgroup-version', String(plan.cgroupVersion), '--parent-cgroup', plan.cgroup.replace(/^\//, '')],
  ...cgroupWords(plan),
  ...['--', '--api-sock', IN_JAIL.api],
  ...['--log-path', IN_JAIL.log, '--level', 'Info', '--metrics-path', IN_JAIL.metrics],
];

/** What a guest may send and receive: 1 Gbit/s, so that one machine cannot take a host's whole link. */
const LINK = { bandwidth: { size: 125_000_000, refill_time: 1000 } };
/** What a guest may print; the rest is dropped by Firecracker before it costs anyone anything. */
const SERIAL = { size: 4 * 1024 * 1024, one_time_burst: 1024 * 1024, refill_time: 1000 };
/** What a guest may take of the host's entropy. */
const ENTROPY = { bandwidth: { size: 64 * 1024, one_time_burst: 1024 * 1024, refill_time: 1000 } };

const MOST_CPUS = 32;
export const GUEST_CID = 3;

/** Words for the kernel that every guest of ours gets, also the smallest. Firecracker adds where its devices are. */
export const kernelArguments = (more: readonly string[]): string =>
  [
    KERNEL_CONSOLE,
    // The only way out of a microVM: its keyboard controller resets it, and Firecracker ends.
    'reboot=k i8042.noaux i8042.nomux i8042.dumbkbd',
    // One serial port, as there is: the kernel need not look for three more.
    '8250.nr_uarts=1',
    ...more,
  ].join(' ');

const put = (path: string, body: object): Call => ({ method: 'PUT', path, body });

/** Processors, memory and what is started. */
export const baseCalls = (cpus: number, memoryMiB: number, bootArguments: string): Call[] => [
  put('/machine-config', { vcpu_count: Math.min(MOST_CPUS, Math.ceil(cpus)), mem_size_mib: memoryMiB }),
  put('/boot-source', {
    kernel_image_path: IN_JAIL.kernel,
    initrd_path: IN_JAIL.initrd,
    boot_args: bootArguments,
  }),
  put('/serial', { rate_limiter: SERIAL }),
];

export interface GuestPlan {
  limits: Limits;
  kind: MachineKind;
  layers: number;
  bootArguments: readonly string[];
  mac: string;
  tap: string;
}

/** The disks in the order in which the guest finds them: Firecracker chooses their serial numbers itself. */
export const diskOrder = (layers: number): string[] => [
  ...Array.from({ length: layers }, (_, index) => `layer${index}`),
  'private',
  'config',
];

/** Everything before the start, in order. */
export function bootCalls(plan: GuestPlan): Call[] {
  const { limits, kind, layers, mac, tap } = plan;
  const drive = (name: string, path: string, readOnly: boolean): Call =>
    put(`/drives/${name}`, {
      drive_id: name,
      path_on_host: path,
      is_root_device: false,
      is_read_only: readOnly,
      // Nobody needs the disk of a single-use machine after a crash of its host.
      cache_type: readOnly || kind === 'browser' ? 'Unsafe' : 'Writeback',
    });
  const order = diskOrder(layers);
  return [
    ...baseCalls(
      limits.cpus,
      limits.memoryMiB,
      kernelArguments([`polydev.disks=${order.join(',')}`, ...plan.bootArguments]),
    ),
    ...Array.from({ length: layers }, (_, index) => drive(`layer${index}`, IN_JAIL.layer(index), true)),
    drive('private', IN_JAIL.disk, false),
    drive('config', IN_JAIL.config, true),
    put('/network-interfaces/eth0', {
      iface_id: 'eth0',
      host_dev_name: tap,
      guest_mac: mac,
      rx_rate_limiter: LINK,
      tx_rate_limiter: LINK,
    }),
    put('/vsock', { guest_cid: GUEST_CID, uds_path: IN_JAIL.vsock }),
    put('/entropy', { rate_limiter: ENTROPY }),
    // Gives memory that the guest freed back to the host, and takes none from it.
    put('/balloon', { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true }),
  ];
}

export const START: Call = put('/actions', { action_type: 'InstanceStart' });
export const PAUSE: Call = { method: 'PATCH', path: '/vm', body: { state: 'Paused' } };
export const RESUME: Call = { method: 'PATCH', path: '/vm', body: { state: 'Resumed' } };
export const SAVE: Call = put('/snapshot/create', {
  snapshot_type: 'Full',
  snapshot_path: IN_JAIL.state,
  mem_file_path: IN_JAIL.memory,
});
/** Loads a guest without letting it run; its clock is set forward to now. */
const load = (state: string, memory: string, more: object): Call =>
  put('/snapshot/load', {
    snapshot_path: state,
    mem_backend: { backend_type: 'File', backend_path: memory },
    resume_vm: false,
    clock_realtime: true,
    ...more,
  });
export const LOAD: Call = load(IN_JAIL.state, IN_JAIL.memory, {});
/** The same for a copy of a template, whose link had another name. Its memory is mapped privately: the file stays as it is. */
export const loadCopy = (tap: string): Call =>
  load(IN_JAIL.templateState, IN_JAIL.templateMemory, {
    network_overrides: [{ iface_id: 'eth0', host_dev_name: tap }],
  });
