import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { tar } from './tar.ts';

it('writes a config drive that any tar unpacks', () => {
  const folder = mkdtempSync(join(tmpdir(), 'polydev-tar-'));
  try {
    const text = `${'x'.repeat(1000)}ü\n`;
    const archive = tar([
      { path: 'polydev/config.json', mode: 0o400, text },
      { path: 'systemd/network/10-eth0.network', mode: 0o644, text: '[Match]\n' },
    ]);
    writeFileSync(join(folder, 'a.tar'), archive);
    execFileSync('tar', ['-x', '-f', 'a.tar'], { cwd: folder, timeout: 5000 });
    expect(readFileSync(join(folder, 'polydev/config.json'), 'utf8')).toBe(text);
    expect(statSync(join(folder, 'polydev/config.json')).mode & 0o777).toBe(0o400);
    expect(statSync(join(folder, 'systemd/network')).mode & 0o777).toBe(0o755);
    expect(archive.length % 512).toBe(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
