import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { machineTable } from './test-machines.ts';

const report = (suite: string, tests: Record<string, string>): string =>
  JSON.stringify({
    numPassedTests: 0,
    numFailedTests: 0,
    numPendingTests: 0,
    numTodoTests: 0,
    testResults: [
      {
        name: 'contract.test.ts',
        status: 'passed',
        assertionResults: Object.entries(tests).map(([title, status]) => ({
          title,
          status,
          ancestorTitles: [suite],
          fullName: `${suite} ${title}`,
        })),
      },
    ],
  });

it('shows each test for each driver, what the skipped ones lack, and the last run in the bench', async () => {
  const checkout = mkdtempSync(join(tmpdir(), 'polydev-table-'));
  try {
    const artifacts = join(checkout, '.artifacts');
    mkdirSync(artifacts);
    const namespace = report('namespace driver: contract (needs nothing more)', {
      starts: 'passed',
      ends: 'failed',
    });
    const without = report('firecracker driver: contract (needs Firecracker (POLYDEV_FIRECRACKER))', {
      starts: 'skipped',
    });
    const copies = report('namespace driver: copies of a machine (needs a driver that makes templates)', {
      copies: 'skipped',
    });
    const both = {
      ...JSON.parse(namespace),
      testResults: [namespace, without, copies].flatMap((r) => JSON.parse(r).testResults),
    };
    writeFileSync(join(artifacts, 'machines.json'), JSON.stringify(both));
    expect((await machineTable(checkout)).split('\n')).toEqual([
      'test    namespace  firecracker',
      'starts  pass       skip',
      'ends    FAIL',
      'copies  skip',
      'namespace, copies of a machine: needs a driver that makes templates',
      'firecracker, contract: needs Firecracker (POLYDEV_FIRECRACKER)',
    ]);
    const inBench = report('firecracker driver: contract (needs nothing more)', { starts: 'passed' });
    writeFileSync(join(artifacts, 'kvm-firecracker.json'), inBench);
    const lines = (await machineTable(checkout)).split('\n');
    expect(lines[0]).toBe('test    namespace  firecracker  firecracker (KVM bench)');
    expect(lines[1]).toBe('starts  pass       skip         pass');
    expect(lines.at(-1)).toContain('KVM bench, firecracker: last run of ./polydev test kvm');
  } finally {
    rmSync(checkout, { recursive: true });
  }
});
