/** What can be connected, what is connected, and on which hosts it runs. */
import { z } from 'zod';
import { Credential, Host, Provider } from '../../../protocol/api.ts';
import { CredentialId, UserId } from '../../../protocol/ids.ts';
import { actingFor, callerOf, listFilter, owned } from '../caller.ts';
import type { Api, RouteContext } from '../context.ts';
import { errorReplies } from '../openapi.ts';

const OfPerson = z.strictObject({ userId: UserId.optional() });

export function addCredentialRoutes(app: Api, context: RouteContext): void {
  const { credentials, hosts } = context.services;

  app.get(
    '/api/providers',
    {
      schema: {
        tags: ['credentials'],
        summary: 'The providers, each with what the person has connected',
        querystring: OfPerson,
        response: {
          200: z.object({ providers: z.array(Provider) }),
          ...errorReplies('bad_request', 'forbidden'),
        },
      },
    },
    async (request) => {
      const mine = await credentials.list({ userId: actingFor(callerOf(request), request.query.userId) });
      return {
        providers: context.providers.map(({ id, title }) => ({
          id,
          title,
          connected: mine.filter((credential) => credential.provider === id),
        })),
      };
    },
  );

  app.get(
    '/api/credentials',
    {
      schema: {
        tags: ['credentials'],
        summary: 'Stored credentials: metadata only',
        description: 'An operator sees everybody’s unless it names a person.',
        querystring: OfPerson,
        response: {
          200: z.object({ credentials: z.array(Credential) }),
          ...errorReplies('bad_request', 'forbidden'),
        },
      },
    },
    async (request) => ({
      credentials: await credentials.list(listFilter(callerOf(request), request.query.userId)),
    }),
  );

  app.delete(
    '/api/credentials/:id',
    {
      schema: {
        tags: ['credentials'],
        summary: 'Forget a credential: the stored one and the file in its machine',
        description: 'The CLI’s own logout is not run: it would revoke the account’s tokens at the provider.',
        params: z.object({ id: CredentialId }),
        response: { 204: z.null(), ...errorReplies('bad_request', 'not_found', 'conflict') },
      },
    },
    async (request, reply) => {
      const caller = callerOf(request);
      const credential = owned(caller, await credentials.get(request.params.id), 'credential');
      await credentials.remove(credential.id);
      return reply.code(204).send(null);
    },
  );

  app.get(
    '/api/hosts',
    {
      config: { gate: 'operator' },
      schema: {
        tags: ['operation'],
        summary: 'The hosts that run machines',
        response: { 200: z.object({ hosts: z.array(Host) }), ...errorReplies('forbidden') },
      },
    },
    async () => ({ hosts: await hosts.list() }),
  );
}
