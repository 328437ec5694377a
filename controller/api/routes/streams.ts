/** The two WebSockets. The ticket in the query is the identity; it is checked and spent before the upgrade. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { PolydevError } from '../../../protocol/errors.ts';
import { MachineId, SessionId } from '../../../protocol/ids.ts';
import { relayDesktop, relayTerminal } from '../../streams/sockets.ts';
import type { Api, RouteContext } from '../context.ts';
import type { OpenedTicket } from '../tickets.ts';

const DesktopQuery = z.object({ ticket: z.string().max(2048).default('') });
const TerminalQuery = DesktopQuery.extend({
  cols: z.coerce.number().int().min(2).max(1000).default(80),
  rows: z.coerce.number().int().min(2).max(1000).default(24),
});

export function addStreamRoutes(app: Api, context: RouteContext): void {
  /** Between the check before the upgrade and the handler after it. */
  const opened = new WeakMap<FastifyRequest['raw'], OpenedTicket>();
  const check =
    (purpose: 'desktop' | 'terminal') => async (request: FastifyRequest, _reply: FastifyReply) => {
      if (!request.ws) throw new PolydevError('bad_request', 'this path is a WebSocket');
      const { ticket } = DesktopQuery.parse(request.query);
      const claim = context.tickets.open(purpose, ticket);
      if (!(await context.access.holds(claim.caller.proof))) {
        throw new PolydevError('ticket_invalid', 'the identity behind the ticket was revoked');
      }
      opened.set(request.raw, claim);
    };
  const claimOf = (request: FastifyRequest): OpenedTicket => {
    const claim = opened.get(request.raw);
    if (claim === undefined) throw new PolydevError('ticket_invalid', 'the ticket was not checked');
    return claim;
  };

  app.get(
    '/api/desktop',
    {
      websocket: true,
      config: { gate: 'public', stream: true },
      schema: { querystring: DesktopQuery },
      preHandler: check('desktop'),
    },
    async (socket, request) => {
      const { caller, target } = claimOf(request);
      await relayDesktop(context, socket, request.log, caller, SessionId.parse(target));
    },
  );

  app.get(
    '/api/terminals',
    {
      websocket: true,
      config: { gate: 'public', stream: true },
      schema: { querystring: TerminalQuery },
      preHandler: check('terminal'),
    },
    async (socket, request) => {
      const { caller, target } = claimOf(request);
      const { cols, rows } = request.query;
      await relayTerminal(context, socket, request.log, caller, MachineId.parse(target), { cols, rows });
    },
  );
}
