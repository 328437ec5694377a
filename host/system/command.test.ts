import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { run } from './command.ts';
import { endProcess, findProcesses } from './processes.ts';

it('does not wait for what an ended program has started', { timeout: 10_000 }, async () => {
  const mark = `30.${process.pid}`;
  const argv = ['sh', '-c', `sleep ${mark} & sleep 30`];
  try {
    await expect(run(argv, { timeoutMs: 200 })).rejects.toThrow('no end after 200 ms');
    const aborted = new AbortController();
    const running = run(argv, { signal: aborted.signal });
    await sleep(100);
    aborted.abort();
    await expect(running).rejects.toThrow('aborted');
  } finally {
    const left = findProcesses((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8') === `sleep\0${mark}\0`);
    await Promise.all(left.map((found) => endProcess(found, 1000)));
    expect(left).toHaveLength(2);
  }
});
