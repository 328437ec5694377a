/** Who is calling, how a person signs in and out, and the tickets that open streams. */
import { z } from 'zod';
import { Me, Ticket, TicketRequest } from '../../../protocol/api.ts';
import { PolydevError } from '../../../protocol/errors.ts';
import type { MachineId, SessionId } from '../../../protocol/ids.ts';
import { type Caller, callerOf, OPERATOR, owned } from '../caller.ts';
import type { Api, RouteContext } from '../context.ts';
import { sessionCookieName } from '../identity.ts';
import { errorReplies } from '../openapi.ts';

const WEB_SOCKET_PATHS = { desktop: '/api/desktop', terminal: '/api/terminals' } as const;

const SignInLink = z.object({
  path: z.string(),
  url: z.string(),
  expiresAt: z.iso.datetime({ precision: 3 }),
});

/** The path of a sign-in link. */
export const signInPath = (token: string): string => `/sign-in?token=${token}`;

/** Where a browser goes whose link was refused; the dashboard knows it (web/data/routes.ts). */
const REFUSED_LINK_PATH = '/?sign-in=refused';

export function addAccessRoutes(app: Api, context: RouteContext): void {
  const { access, publicUrl, tickets } = context;
  const { logins, machines } = context.services;
  const secure = publicUrl?.protocol === 'https:';
  const cookie = { path: '/', httpOnly: true, sameSite: 'strict', secure } as const;

  app.get(
    '/api/me',
    {
      schema: {
        tags: ['access'],
        summary: 'Who the caller is',
        response: { 200: Me, ...errorReplies() },
      },
    },
    async (request): Promise<Me> => {
      const { userId, role } = callerOf(request);
      return { userId, role, realms: context.allowTestRealm ? ['internet', 'test'] : ['internet'] };
    },
  );

  app.get(
    '/sign-in',
    {
      config: { gate: 'public' },
      // A HEAD, as link previews send it, must not spend the link.
      exposeHeadRoute: false,
      schema: {
        tags: ['access'],
        summary: 'Open a sign-in link: once, then to the dashboard',
        security: [],
        querystring: z.object({ token: z.string().min(1).max(128) }),
        response: {
          303: z.null().describe('To the dashboard: signed in, or a browser whose link was refused'),
          ...errorReplies('bad_request'),
        },
      },
    },
    async (request, reply) => {
      const opened = await access.consumeSignInLink(request.query.token);
      if (opened === undefined) {
        // Somebody who opens an old link, perhaps from the history, needs the page that says how to get a new one.
        if (request.headers.accept?.includes('text/html')) return reply.redirect(REFUSED_LINK_PATH, 303);
        throw new PolydevError('unauthenticated', 'this sign-in link was used before or is too old');
      }
      await context.audit.record({ caller: opened.caller, action: 'sign_in', target: opened.caller.userId });
      return reply
        .setCookie(sessionCookieName(secure), opened.sessionToken, { ...cookie, expires: opened.expiresAt })
        .redirect('/', 303);
    },
  );

  app.post(
    '/api/sign-out',
    {
      schema: {
        tags: ['access'],
        summary: 'End this browser session and every stream that it opened',
        response: { 204: z.null(), ...errorReplies('conflict') },
      },
    },
    async (request, reply) => {
      const { proof } = callerOf(request);
      if (proof.kind !== 'web_session')
        throw new PolydevError('conflict', 'an API key has no session to end');
      await access.endWebSession(proof.id);
      context.openStreams.endOf(proof);
      return reply.clearCookie(sessionCookieName(secure), cookie).code(204).send(null);
    },
  );

  app.post(
    '/api/sign-in-links',
    {
      config: { gate: 'operator' },
      schema: {
        tags: ['access'],
        summary: 'A fresh one-time sign-in link for the operator; API keys only',
        response: { 201: SignInLink, ...errorReplies('forbidden') },
      },
    },
    async (request, reply) => {
      const caller = callerOf(request);
      // A stolen browser session must not be able to outlive itself.
      if (caller.proof.kind !== 'api_key') throw new PolydevError('forbidden', 'this call needs an API key');
      const { token, expiresAt } = await access.createSignInLink(OPERATOR, 'operator');
      await context.audit.record({ caller, action: 'sign_in_link.create', target: OPERATOR });
      const path = signInPath(token);
      return reply.code(201).send({
        path,
        url: new URL(path, publicUrl ?? `${request.protocol}://${request.host}`).href,
        expiresAt: expiresAt.toISOString(),
      });
    },
  );

  app.post(
    '/api/tickets',
    {
      schema: {
        tags: ['access', 'streams'],
        summary: 'A ticket that opens one desktop or terminal within a minute',
        body: TicketRequest,
        response: { 201: Ticket, ...errorReplies('bad_request', 'not_found', 'conflict') },
      },
    },
    async (request, reply) => {
      const caller = callerOf(request);
      const { purpose } = request.body;
      const target =
        request.body.purpose === 'desktop'
          ? await viewable(caller, request.body.sessionId)
          : await openable(caller, request.body.machineId);
      const { ticket, expiresAt } = tickets.issue(purpose, target, caller);
      return reply.code(201).send({
        ticket,
        expiresAt: expiresAt.toISOString(),
        webSocketPath: `${WEB_SOCKET_PATHS[purpose]}?ticket=${ticket}`,
      });
    },
  );

  async function viewable(caller: Caller, id: SessionId): Promise<SessionId> {
    const session = owned(caller, await logins.get(id), 'session');
    if (session.actions.includes('view')) return id;
    throw new PolydevError('conflict', `a session that is ${session.state} has no desktop to see`);
  }

  async function openable(caller: Caller, id: MachineId): Promise<MachineId> {
    const machine = owned(caller, await machines.get(id), 'machine');
    if (machine.actions.includes('open_terminal')) return id;
    throw new PolydevError(
      'conflict',
      `a ${machine.kind} machine that is ${machine.state} opens no terminal`,
    );
  }
}
