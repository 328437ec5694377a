import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createHostClient } from '../../../controller/hosts/host-client.ts';
import type { Fault } from '../fault.ts';

export const snapshotFromAnotherVersion: Fault = {
  name: 'snapshot-from-another-version',
  driver: 'qemu',
  expect: 'snapshot_foreign',
  spec: { kind: 'cli', realm: 'test' },
  // The guest sleeps, the host gets another QEMU, and the guest is woken.
  started: async ({ id, config }) => {
    const host = createHostClient(config.socketPath);
    await host.hibernate(id);
    const record = path.join(config.dataDir, 'machines', id, 'asleep', 'machine.json');
    const text = readFileSync(record, 'utf8');
    writeFileSync(record, text.replace(/"hypervisor":"[^"]*"/, '"hypervisor":"QEMU emulator version 6.2.0"'));
    await host.resume(id);
  },
};
