import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { AgentLog } from '../log.ts';
import { mend } from './wake.ts';

const log = new AgentLog(() => undefined);

describe('a guest that wakes', () => {
  it.skipIf(process.getuid?.() !== 0)(
    'gives the kernel random bytes and leaves a clock alone that is right (needs root)',
    async () => {
      const now = { time: Date.now(), at: performance.now() };
      const { aheadMs, clockSet, reseeded } = await mend(now, randomBytes(64), log);
      expect(clockSet).toBe(Math.abs(aheadMs) > 10);
      expect(reseeded, log.text()).toBe(true);
    },
  );
});
