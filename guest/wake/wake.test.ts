import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { AgentLog } from '../log.ts';
import { reseed, setClock } from './wake.ts';

const log = new AgentLog(() => undefined);

describe('a guest that wakes', () => {
  it('leaves a clock alone that is right', async () => {
    const now = { time: Date.now(), at: performance.now() };
    const { aheadMs, clockSet } = await setClock(now, log);
    expect(clockSet).toBe(Math.abs(aheadMs) > 10);
  });

  it.skipIf(process.getuid?.() !== 0)('gives the kernel random bytes (needs root)', async () => {
    expect(await reseed(randomBytes(64), log), log.text()).toBe(true);
  });
});
