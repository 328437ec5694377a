import { describe, expect, it } from 'vitest';
import { type DeadlineRules, deadlineOf } from './deadlines.ts';

const rules = (measured: DeadlineRules['measured'] = new Map(), slowdown = 1): DeadlineRules => ({
  usualMs: 60_000,
  slowdown,
  measured,
});
const idle = { one: 0.3, cpus: 2 };

describe('the deadline of a checkpoint', () => {
  it('is the usual time of the driver while too little was measured, and says so', () => {
    const few = new Map([['agent', { boots: 4, p95Ms: 900 }]] as const);
    expect(deadlineOf(rules(few), 'agent', idle).ms).toBe(60_000);
    expect(deadlineOf(rules(few, 4), 'agent', idle)).toEqual({
      ms: 240_000,
      from: '240 s, the usual time: 4 boots were measured, and 5 are needed',
    });
    expect(deadlineOf(rules(), 'agent', undefined).from).toContain('0 boots were measured');
  });

  it('is made from what boots took, each checkpoint from its own', () => {
    const known = new Map([
      ['agent', { boots: 57, p95Ms: 5_100 }],
      ['browser', { boots: 57, p95Ms: 12_250 }],
    ] as const);
    expect(deadlineOf(rules(known), 'agent', idle)).toEqual({
      ms: 20_400,
      from: '4 × 5.1 s, the 95th percentile of the last 57 boots',
    });
    expect(deadlineOf(rules(known), 'browser', idle).ms).toBe(49_000);
  });

  it('leaves quick machines a floor, grows with the load of the host, and has a ceiling', () => {
    const quick = new Map([['agent', { boots: 9, p95Ms: 300 }]] as const);
    expect(deadlineOf(rules(quick), 'agent', idle)).toEqual({
      ms: 15_000,
      from: '4 × 0.3 s, the 95th percentile of the last 9 boots, at least 15 s',
    });
    const busy = deadlineOf(rules(quick), 'agent', { one: 5, cpus: 2 });
    expect(busy.ms).toBe(37_500);
    expect(busy.from).toContain('× 2.5 for a load of 5 on 2 processors');
    expect(deadlineOf(rules(quick), 'agent', { one: 90, cpus: 2 }).ms).toBe(60_000);
    const slow = new Map([['agent', { boots: 9, p95Ms: 80_000 }]] as const);
    const most = deadlineOf(rules(slow), 'agent', { one: 8, cpus: 2 });
    expect(most.ms).toBe(240_000);
    expect(most.from).toContain('at most 240 s');
    // The reconciler would give it up.
    expect(deadlineOf(rules(slow, 4), 'agent', { one: 8, cpus: 2 }).ms).toBe(580_000);
  });
});
