import { describe, expect, it } from 'vitest';
import type { TimelineEvent } from '../../protocol/api.ts';
import { mergeTimeline } from './live-session.ts';
import { parseRoute, pathOf } from './routes.ts';
import { stepsOf } from './timeline.ts';

let seq = 0;
const event = (
  subject: TimelineEvent['subject'],
  kind: TimelineEvent['kind'],
  name: string,
  offsetMs: number,
): TimelineEvent => {
  seq += 1;
  const at = new Date(1_700_000_000_000 + offsetMs).toISOString();
  return { seq, at, subject, id: 's', kind, name, durationMs: kind === 'step' ? 7 : null, detail: null };
};

describe('stepsOf', () => {
  it('shows the whole usual path before anything has happened', () => {
    const steps = stepsOf([]);
    expect(steps.map((step) => step.status)).toEqual(Array(7).fill('ahead'));
  });

  it('puts what the machine did below the step in which it did it', () => {
    const [queued, preparing, waiting, capturing] = stepsOf([
      event('session', 'state', 'queued', 0),
      event('session', 'state', 'preparing', 10),
      event('machine', 'state', 'creating', 11),
      event('machine', 'checkpoint', 'hypervisor', 100),
      event('session', 'step', 'reserve_address', 120),
      event('session', 'step', 'login_page', 800),
      event('session', 'state', 'waiting_for_person', 900),
    ]);
    expect(queued).toMatchObject({ status: 'done', children: [] });
    expect(preparing).toMatchObject({ status: 'done', title: 'Browser machine ready' });
    expect(preparing?.children).toMatchObject([
      { title: 'Sandbox started', offsetMs: 100, tookMs: null },
      { title: 'Reserve address', tookMs: 7 },
      { title: 'CLI opened the sign-in page', tookMs: 7 },
    ]);
    expect(waiting).toMatchObject({ status: 'current', leftAt: null });
    expect(capturing).toMatchObject({ status: 'ahead', at: null });
  });

  it('puts work below the step in which it was done, though it is written down when it has ended', () => {
    const steps = stepsOf([
      event('session', 'state', 'queued', 0),
      event('session', 'state', 'waiting_for_person', 10),
      event('session', 'state', 'capturing', 900),
      event('session', 'step', 'person', 902),
      event('session', 'step', 'capture', 920),
    ]);
    expect(steps[1]?.children).toMatchObject([{ title: "Sign-in on the provider's page" }]);
    expect(steps[2]?.children).toMatchObject([{ title: 'Credential read' }]);
  });

  it('marks the step at which a login stopped and promises nothing after it', () => {
    const steps = stepsOf([
      event('session', 'state', 'queued', 0),
      event('session', 'state', 'preparing', 10),
      event('session', 'state', 'failed', 50),
      event('machine', 'state', 'destroyed', 90),
    ]);
    expect(steps.map(({ state, status }) => `${state} ${status}`)).toEqual([
      'queued done',
      'preparing stopped',
      'failed ended',
    ]);
    expect(steps[2]?.children).toMatchObject([{ title: 'Browser machine removed' }]);
  });
});

it('mergeTimeline keeps each event once, in order, whichever way it came', () => {
  const [a, b, c] = [1, 2, 3].map((n) => ({ ...event('session', 'state', 'queued', n), seq: n }));
  if (a === undefined || b === undefined || c === undefined) throw new Error('three events');
  expect(mergeTimeline([a, c], [b, c])).toEqual([a, b, c]);
});

it('parseRoute and pathOf are each other’s inverse, and unknown paths are not found', () => {
  const paths = ['/', '/sessions/s_1', '/sessions/s_1/desktop', '/machines', '/machines/m_1'];
  for (const path of [...paths, '/machines/m_1/terminal', '/credentials', '/hosts']) {
    expect(pathOf(parseRoute(path))).toBe(path);
  }
  for (const path of ['/nowhere', '/sessions', '/machines/m_1/terminal/x', '/credentials/c_1']) {
    expect(parseRoute(path)).toEqual({ page: 'not-found' });
  }
});
