/** What hosts say of themselves, as gauges. A host that does not answer has only `polydev_host_up` 0. */
import { Gauge, type Registry } from 'prom-client';
import type { Host } from '../../protocol/api.ts';

const MIB = 1024 * 1024;

/** Adds the gauges; `show` replaces what they say. The label `host` is the name of a host, of which there are few. */
export function addHostMetrics(registry: Registry): { show(hosts: readonly Host[]): void } {
  const registers = [registry];
  const gauge = <L extends string>(name: string, help: string, ...more: L[]) =>
    new Gauge<'host' | L>({ name, help, labelNames: ['host', ...more], registers });
  const up = gauge(
    'polydev_host_up',
    '1 when the host takes machines, 0 when it does not or does not answer',
  );
  const memorySize = gauge('polydev_host_memory_bytes', 'Memory of the host');
  const memoryFree = gauge('polydev_host_memory_available_bytes', 'Memory of the host that programs can get');
  const diskSize = gauge('polydev_host_disk_bytes', "Size of the file system of the host's data directory");
  const diskFree = gauge('polydev_host_disk_available_bytes', 'Free space of that file system');
  const running = gauge('polydev_host_machines', 'Machines that run on the host');
  const evidence = gauge('polydev_host_evidence_bytes', 'What is kept of machines');
  const evidenceOf = gauge('polydev_host_evidence_machines', 'Machines of which something is kept');
  const promised = gauge(
    'polydev_host_promised_disk_bytes',
    'Sizes of all private disks together, used, and how much that may be, allowed',
    'state',
  );
  const addresses = gauge('polydev_host_addresses', 'Addresses for machines: used and free', 'state');
  const recovered = gauge(
    'polydev_host_recovered_machines',
    'Machines that the host service found at its start: adopted ran on, ended did not',
    'outcome',
  );
  const all = [
    ...[up, memorySize, memoryFree, diskSize, diskFree, running, evidence, evidenceOf],
    ...[promised, addresses, recovered],
  ];
  return {
    show(hosts) {
      for (const one of all) one.reset();
      for (const { id: host, ok, ...facts } of hosts) {
        up.set({ host }, ok ? 1 : 0);
        const { promisedDiskMiB, evidence: kept, addresses: leases, recovered: found } = facts;
        // Nothing is known of one that does not answer; noughts would look like a full disk.
        if (promisedDiskMiB === null || kept === null || leases === null || found === null) continue;
        memorySize.set({ host }, facts.memoryMiB.total * MIB);
        memoryFree.set({ host }, facts.memoryMiB.available * MIB);
        diskSize.set({ host }, facts.diskMiB.total * MIB);
        diskFree.set({ host }, facts.diskMiB.available * MIB);
        running.set({ host }, facts.machines);
        evidence.set({ host }, kept.mib * MIB);
        evidenceOf.set({ host }, kept.machines);
        promised.set({ host, state: 'used' }, promisedDiskMiB.used * MIB);
        promised.set({ host, state: 'allowed' }, promisedDiskMiB.allowed * MIB);
        addresses.set({ host, state: 'used' }, leases.used);
        addresses.set({ host, state: 'free' }, leases.size - leases.used);
        recovered.set({ host, outcome: 'adopted' }, found.adopted);
        recovered.set({ host, outcome: 'ended' }, found.ended);
      }
    },
  };
}
