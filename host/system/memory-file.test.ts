import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { expect, it } from 'vitest';
import { openMemoryFile, sealMemoryFile } from './memory-file.ts';

it('memory that is sealed can be read by everybody and written by nobody', () => {
  const fd = openMemoryFile('test', 8192);
  try {
    writeSync(fd, 'kept', 4096);
    sealMemoryFile(fd);
    expect(() => writeSync(fd, 'lost', 4096)).toThrow('EPERM');
    // As a hypervisor opens it, which asks to write.
    const again = openSync(`/proc/self/fd/${fd}`, 'r+');
    try {
      expect(() => writeSync(again, 'lost', 4096)).toThrow('EPERM');
      const bytes = Buffer.alloc(4);
      readSync(again, bytes, 0, 4, 4096);
      expect(bytes.toString()).toBe('kept');
    } finally {
      closeSync(again);
    }
  } finally {
    closeSync(fd);
  }
});
