/** What `connect` makes of a desktop that goes away; the rest of it is shown end to end, on real machines. */
import { expect, it } from 'vitest';
import type { Session, TimelineEvent } from '../protocol/api.ts';
import { PolydevError } from '../protocol/errors.ts';
import { newSessionId, UserId } from '../protocol/ids.ts';
import type { SessionState } from '../protocol/lifecycles.ts';
import type { Api } from './api.ts';
import { connect } from './connect.ts';

const NOW = '2026-01-01T00:00:00.000Z';

/** A controller whose desktop is lost at once. When that happened the session was in `meanwhile`; it ends in `last`. */
function losesTheDesktop(meanwhile: SessionState, last: SessionState) {
  const calls: string[] = [];
  let state: SessionState = 'waiting_for_person';
  const looked = Promise.withResolvers<void>();
  const session = (): Session => ({
    id: newSessionId(),
    userId: UserId.parse('ada'),
    provider: 'codex',
    account: 'default',
    realm: 'test',
    state,
    createdAt: NOW,
    expiresAt: NOW,
    endedAt: null,
    browserMachineId: null,
    cliMachineId: null,
    credentialId: null,
    loginUrl: null,
    liveViewPath: '/live',
    verification: null,
    error: null,
    actions: [],
    timeline: [],
  });
  const event = (seq: number, name: SessionState): TimelineEvent => ({
    ...{ seq, at: NOW, subject: 'session', id: 's', kind: 'state', name, durationMs: null, detail: null },
  });
  const api: Api = {
    url: 'http://127.0.0.1:1',
    publicUrl: 'http://127.0.0.1:1',
    request: async (method, route, schema) => {
      calls.push(`${method} ${route.replace(/s_\w+/, 'ID')}`);
      if (route === '/api/tickets') {
        state = meanwhile;
        throw new PolydevError('machine_unreachable', 'the connection to the desktop broke');
      }
      if (route.endsWith('/credentials/status')) return schema.parse({ facts: null });
      const answer = schema.parse(session());
      if (method === 'GET') looked.resolve();
      return answer;
    },
    text: () => Promise.reject(new Error('not asked for')),
    bytes: () => Promise.reject(new Error('not asked for')),
    async *timeline() {
      yield event(1, 'waiting_for_person');
      // The next one is late: the desktop is gone, and somebody has looked why.
      await looked.promise;
      await new Promise((resolve) => setTimeout(resolve, 50));
      state = last;
      yield event(2, last);
    },
  };
  return { api, calls };
}

const options = {
  provider: 'codex',
  testIdp: true,
  json: true,
  user: undefined,
  account: undefined,
  expires: undefined,
  keepFailed: undefined,
  person: { email: 'ada@example.test', password: 'secret', consent: 'allow' },
} as const;
const output = { say: () => undefined, progress: () => undefined, result: () => undefined };

it('lets a session go on whose desktop went away because the CLI has what it needs', async () => {
  const { api, calls } = losesTheDesktop('capturing', 'completed');
  const ended = await connect(api, options, output, AbortSignal.timeout(20_000));
  expect(ended.state).toBe('completed');
  expect(calls.filter((call) => call.startsWith('DELETE'))).toEqual([]);
});

it('cancels a session whose desktop broke while the person was needed, and says why', async () => {
  const { api, calls } = losesTheDesktop('waiting_for_person', 'cancelled');
  const ended = connect(api, options, output, AbortSignal.timeout(20_000));
  await expect(ended).rejects.toThrow('the connection to the desktop broke');
  expect(calls).toContain('DELETE /api/auth/session/ID');
});
