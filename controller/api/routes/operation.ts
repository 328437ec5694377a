/** For whoever runs this: alive, ready, counted, described. */

import type { FastifyBaseLogger } from 'fastify';
import { z } from 'zod';
import type { Api, ReadinessCheck, RouteContext } from '../context.ts';
import { toPolydevError } from '../errors.ts';
import type { Metrics } from '../metrics.ts';
import { errorReplies, textReply } from '../openapi.ts';

const CHECK_DEADLINE_MS = 5_000;

const Readiness = z.object({
  ready: z.boolean(),
  /** Every part that must work; `problem` is null when it does. */
  parts: z.array(z.object({ name: z.string(), problem: z.string().nullable() })),
});
type Readiness = z.infer<typeof Readiness>;

export function addOperationRoutes(app: Api, context: RouteContext, metrics: Metrics): void {
  const checks = [...context.readiness, hostCheck(context), imageCheck(context)];

  app.get(
    '/health',
    {
      config: { gate: 'unlimited' },
      schema: {
        tags: ['operation'],
        summary: 'The process is alive',
        security: [],
        response: { 200: z.object({ ok: z.literal(true), uptimeSeconds: z.number() }) },
      },
    },
    async () => ({ ok: true as const, uptimeSeconds: Math.round(process.uptime()) }),
  );

  app.get(
    '/ready',
    {
      config: { gate: 'unlimited' },
      schema: {
        tags: ['operation'],
        summary: 'Everything that a login needs works, or which part does not',
        security: [],
        response: { 200: Readiness, 503: Readiness },
      },
    },
    async (request, reply) => {
      const parts = await Promise.all(
        checks.map(async ({ name, check }) => ({ name, problem: await problemOf(check, request.log) })),
      );
      const ready = parts.every(({ problem }) => problem === null);
      return reply.code(ready ? 200 : 503).send({ ready, parts } satisfies Readiness);
    },
  );

  app.get(
    '/metrics',
    {
      config: { gate: 'operator' },
      schema: {
        tags: ['operation'],
        summary: 'Prometheus metrics; operators only',
        response: { 200: textReply('text/plain', 'Metrics'), ...errorReplies('forbidden') },
      },
    },
    async (_request, reply) => reply.type(metrics.contentType).send(await metrics.text()),
  );

  app.get('/openapi.json', { config: { gate: 'public' }, schema: { hide: true } }, async (_request, reply) =>
    reply.type('application/json').send(JSON.stringify(app.swagger())),
  );
}

async function problemOf(check: ReadinessCheck['check'], log: FastifyBaseLogger): Promise<string | null> {
  const signal = AbortSignal.timeout(CHECK_DEADLINE_MS);
  const late = new Promise<string>((resolve) => {
    signal.addEventListener('abort', () => resolve(`no answer within ${CHECK_DEADLINE_MS / 1000} s`));
  });
  try {
    return (await Promise.race([check(signal), late])) ?? null;
  } catch (thrown) {
    // Anybody may ask /ready, so what an unexpected error says stays in the log.
    const error = toPolydevError(thrown);
    log.warn({ err: error }, 'a readiness check failed');
    return error.message;
  }
}

function hostCheck({ services }: RouteContext): ReadinessCheck {
  return {
    name: 'host_service',
    async check() {
      const hosts = await services.hosts.list();
      if (hosts.length === 0) return 'no host service is known';
      if (hosts.some((host) => host.ok)) return undefined;
      return hosts.flatMap((host) => (host.problems.length === 0 ? ['not ok'] : host.problems)).join('; ');
    },
  };
}

function imageCheck({ services }: RouteContext): ReadinessCheck {
  return {
    name: 'image',
    async check() {
      const hosts = await services.hosts.list();
      return hosts.some((host) => host.image !== null) ? undefined : 'no host has a golden image';
    },
  };
}
