import { defineConfig } from 'vitest/config';

/**
 * Suites: `unit` (also contracts; beside the code), `faults` (real faults in real machines, diagnosed by name), `crash`
 * (every process killed at every step) and `e2e` (whole sessions on real parts, one at a time); `kvm` runs inside
 * testkit/kvm-bench/, where there is KVM.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['**/*.test.{ts,tsx}'],
          exclude: [
            ...[
              '**/node_modules/**',
              '**/dist/**',
              'testkit/e2e/**',
              'testkit/crash/**',
              'testkit/kvm-bench/**',
            ],
            'testkit/faults/faults.test.ts',
          ],
          environment: 'node',
          testTimeout: 60_000,
          hookTimeout: 120_000,
          pool: 'forks',
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: 'faults',
          include: ['testkit/faults/faults.test.ts'],
          environment: 'node',
          // Longer than any boot is followed: one that stalls is to be named, with its evidence.
          testTimeout: 300_000,
          hookTimeout: 120_000,
          pool: 'forks',
        },
      },
      {
        test: {
          name: 'crash',
          include: ['testkit/crash/**/*.test.ts'],
          environment: 'node',
          testTimeout: 300_000,
          hookTimeout: 600_000,
          pool: 'forks',
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'kvm',
          include: ['testkit/kvm-bench/**/*.test.ts'],
          environment: 'node',
          testTimeout: 900_000,
          hookTimeout: 900_000,
          pool: 'forks',
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['testkit/e2e/**/*.test.ts'],
          environment: 'node',
          testTimeout: 300_000,
          hookTimeout: 600_000,
          pool: 'forks',
          fileParallelism: false,
        },
      },
    ],
  },
});
