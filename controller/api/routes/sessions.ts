/** Login sessions: start, look, follow, help along, cancel. */
import { z } from 'zod';
import { CredentialStatus } from '../../../protocol/agent.ts';
import { AuthStart, Session, SessionInput, type TimelineEvent } from '../../../protocol/api.ts';
import { PolydevError } from '../../../protocol/errors.ts';
import { SessionId, UserId } from '../../../protocol/ids.ts';
import { encodeSse, type SseEvent, textStream } from '../../streams/lines.ts';
import { actingFor, type Caller, callerOf, listFilter, owned } from '../caller.ts';
import type { Api, RouteContext } from '../context.ts';
import { errorReplies, textReply } from '../openapi.ts';

const DEFAULT_EXPIRY_SECONDS = 900;
const Params = z.object({ id: SessionId });

export function addSessionRoutes(app: Api, context: RouteContext): void {
  const { logins, credentials } = context.services;
  const find = async (caller: Caller, id: SessionId) => owned(caller, await logins.get(id), 'session');

  app.post(
    '/api/auth/start',
    {
      config: { startsMachine: true },
      schema: {
        tags: ['sessions'],
        summary: 'Start connecting a provider',
        description:
          'Starts a browser machine with the provider’s CLI in it. Follow the session by its events.',
        body: AuthStart,
        response: {
          201: Session,
          ...errorReplies(
            'bad_request',
            'forbidden',
            'login_in_progress',
            'quota_exceeded',
            'driver_unusable',
            'image_missing',
            'host_unreachable',
          ),
        },
      },
    },
    async (request, reply) => {
      const { provider, account, realm, expiresInSeconds, userId, keepFailed } = request.body;
      if (realm === 'test' && !context.allowTestRealm) {
        throw new PolydevError('forbidden', 'this controller does not allow the test realm');
      }
      const session = await logins.start({
        userId: actingFor(callerOf(request), userId),
        provider,
        account: account ?? 'default',
        realm: realm ?? 'internet',
        expiresInSeconds: expiresInSeconds ?? DEFAULT_EXPIRY_SECONDS,
        keepFailed,
      });
      return reply.code(201).send(session);
    },
  );

  app.get(
    '/api/auth/sessions',
    {
      schema: {
        tags: ['sessions'],
        summary: 'List sessions, newest first, at most 200',
        description: 'An operator sees everybody’s unless it names a person.',
        querystring: z.strictObject({ userId: UserId.optional() }),
        response: {
          200: z.object({ sessions: z.array(Session) }),
          ...errorReplies('bad_request', 'forbidden'),
        },
      },
    },
    async (request) => ({
      sessions: await logins.list(listFilter(callerOf(request), request.query.userId)),
    }),
  );

  app.get(
    '/api/auth/session/:id',
    {
      schema: {
        tags: ['sessions'],
        summary: 'State, timeline, login URL and error of a session',
        params: Params,
        response: { 200: Session, ...errorReplies('bad_request', 'not_found') },
      },
    },
    async (request) => find(callerOf(request), request.params.id),
  );

  app.get(
    '/api/auth/session/:id/events',
    {
      schema: {
        tags: ['sessions'],
        summary: 'Follow a session: server-sent events',
        description:
          'Each `message` event is a TimelineEvent with its `seq` as id; a reconnect with Last-Event-ID goes on after it. The last event is `end`, once the session is over and its machine gone; a reconnect after that gets 204, which stops an EventSource.',
        params: Params,
        querystring: z.strictObject({
          after: z.coerce
            .number()
            .int()
            .min(0)
            .optional()
            .describe('Like Last-Event-ID, for clients without it.'),
        }),
        response: {
          200: textReply('text/event-stream', 'Timeline events as they happen'),
          204: z.null().describe('The session is over and everything was sent'),
          ...errorReplies('bad_request', 'not_found'),
        },
      },
    },
    async (request, reply) => {
      const caller = callerOf(request);
      const { id } = request.params;
      const session = await find(caller, id);
      const after = lastEventId(request.headers['last-event-id']) ?? request.query.after ?? 0;
      if (after > 0 && isAllSent(session, after)) return reply.code(204).send(null);

      const stream = context.openStreams.open('events', caller, async () => undefined);
      const body = textStream(withEnd(id, after, stream.signal), encodeSse, {
        // A reconnect too soon would find nothing new; 2 s is what a person does not notice.
        opening: 'retry: 2000\n\n',
        beat: async () => (stream.signal.aborted ? undefined : ': beat\n\n'),
        stop: () => {
          stream.end(1000, 'closed');
          stream[Symbol.dispose]();
        },
        ...(context.timing?.heartbeatMs === undefined ? {} : { beatMs: context.timing.heartbeatMs }),
      });
      return reply
        .type('text/event-stream')
        .header('x-accel-buffering', 'no')
        .send(body as never);
    },
  );

  /** The timeline, then `end` with the session as it ended. Throws when the stream was cut off. */
  async function* withEnd(id: SessionId, after: number, signal: AbortSignal): AsyncGenerator<SseEvent> {
    for await (const event of logins.events(id, after, signal)) {
      yield { id: String(event.seq), data: event satisfies TimelineEvent };
    }
    signal.throwIfAborted();
    const session = await logins.get(id);
    if (session !== undefined) yield { event: 'end', data: session };
  }

  function isAllSent(session: Session, after: number): boolean {
    if (session.endedAt === null || (session.timeline.at(-1)?.seq ?? 0) > after) return false;
    if (session.browserMachineId === null) return true;
    // The browser machine may be gone long before the end: what is written last is that nothing is left.
    return session.timeline.some(({ kind, name }) => kind === 'step' && name === 'clean_up');
  }

  app.get(
    '/api/auth/session/:id/novnc',
    {
      schema: {
        tags: ['sessions'],
        summary: 'Go to the live desktop page',
        params: Params,
        response: { 302: z.null().describe('To the page'), ...errorReplies('bad_request', 'not_found') },
      },
    },
    async (request, reply) => {
      const session = await find(callerOf(request), request.params.id);
      return reply.redirect(`/sessions/${session.id}/desktop`, 302);
    },
  );

  app.get(
    '/api/auth/session/:id/credentials/status',
    {
      schema: {
        tags: ['sessions'],
        summary: 'What this session has captured so far; never a token',
        params: Params,
        response: { 200: CredentialStatus, ...errorReplies('bad_request', 'not_found') },
      },
    },
    async (request): Promise<CredentialStatus> => {
      const { provider, credentialId, error } = await find(callerOf(request), request.params.id);
      const credential = credentialId === null ? undefined : await credentials.get(credentialId);
      if (credential !== undefined)
        return { provider, state: 'complete', facts: credential.facts, problem: null };
      const incomplete = error?.code === 'credential_incomplete';
      return {
        provider,
        state: incomplete ? 'incomplete' : 'absent',
        facts: null,
        problem: error?.message ?? null,
      };
    },
  );

  app.post(
    '/api/auth/session/:id/input',
    {
      schema: {
        tags: ['sessions'],
        summary: 'Hand a pasted code or callback URL to the CLI',
        params: Params,
        body: SessionInput,
        response: {
          204: z.null(),
          ...errorReplies('bad_request', 'not_found', 'conflict', 'machine_unreachable'),
        },
      },
    },
    async (request, reply) => {
      const session = await find(callerOf(request), request.params.id);
      if (!session.actions.includes('input')) {
        throw new PolydevError('conflict', `a session that is ${session.state} takes no input`);
      }
      await logins.input(session.id, request.body.text);
      return reply.code(204).send(null);
    },
  );

  for (const path of ['/api/auth/session/:id', '/api/vm/auth/:id']) {
    app.delete(
      path,
      {
        schema: {
          tags: ['sessions'],
          summary: 'Cancel a session; its machine is removed, its evidence stays',
          description: 'A session that is already over is answered as it is.',
          params: Params,
          response: { 200: Session, ...errorReplies('bad_request', 'not_found', 'conflict') },
        },
      },
      async (request) => {
        const session = await find(callerOf(request), request.params.id);
        return session.endedAt === null ? logins.cancel(session.id) : session;
      },
    );
  }
}

function lastEventId(header: string | string[] | undefined): number | undefined {
  if (typeof header !== 'string' || !/^\d{1,15}$/.test(header)) return undefined;
  return Number(header);
}
