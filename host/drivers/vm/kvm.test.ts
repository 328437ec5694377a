import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openKvm } from './kvm.ts';

describe('hardware virtualization', () => {
  it('is absent without its device', () => {
    expect(() => openKvm('/nonexistent/kvm')).toThrow('absent (/nonexistent/kvm: ENOENT)');
  });

  it.skipIf(process.getuid?.() !== 0)('is absent behind a device that no driver serves (needs root)', () => {
    const folder = mkdtempSync(join(tmpdir(), 'polydev-kvm-'));
    const device = join(folder, 'kvm');
    try {
      // The last number of the miscellaneous devices: never given to one.
      execFileSync('mknod', [device, 'c', '10', '1048575']);
      expect(() => openKvm(device)).toThrow(/absent \(.*: (ENODEV|ENXIO)\)/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('is forbidden where it is there and does not open', () => {
    // A folder does not open for writing, whoever asks.
    expect(() => openKvm('/proc')).toThrow('forbidden (/proc: EISDIR)');
  });
});
