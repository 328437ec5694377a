import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { BootEvent } from '../../protocol/agent.ts';
import { BootChecklist } from './checklist.ts';

async function all(checklist: BootChecklist): Promise<BootEvent[]> {
  const events: BootEvent[] = [];
  for await (const event of checklist.events(AbortSignal.timeout(10_000))) events.push(event);
  return events;
}

it('a copy stamps at once what the machine that it was copied from had reached', async () => {
  const checklist = new BootChecklist('cli');
  const old = Date.parse('2020-01-01T00:00:00.000Z');
  for (const checkpoint of ['init', 'agent', 'provider'] as const) checklist.stamp(checkpoint, old);
  expect(checklist.ready).toBe(true);
  const began = Date.now();
  await sleep(2);
  checklist.restamp();
  expect(checklist.ready).toBe(true);
  expect(checklist.stamps.map(({ checkpoint }) => checkpoint)).toEqual(['init', 'agent', 'provider']);
  for (const { at } of checklist.stamps) expect(Date.parse(at)).toBeGreaterThan(began);
  expect((await all(checklist)).map(({ type }) => type)).toEqual(['stamp', 'stamp', 'stamp', 'ready']);
});

it('a copy made in the middle of a boot goes on with it', async () => {
  const checklist = new BootChecklist('cli');
  checklist.stamp('init');
  checklist.restamp();
  expect(checklist.ready).toBe(false);
  checklist.stamp('agent');
  checklist.stamp('provider');
  expect((await all(checklist)).map(({ type }) => type)).toEqual(['stamp', 'stamp', 'stamp', 'ready']);
});
