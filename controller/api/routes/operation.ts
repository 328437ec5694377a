/** For whoever runs this: alive, ready, counted, described. */

import type { FastifyBaseLogger } from 'fastify';
import { z } from 'zod';
import type { Host } from '../../../protocol/api.ts';
import type { Api, ReadinessCheck, RouteContext } from '../context.ts';
import { toPolydevError } from '../errors.ts';
import type { Metrics } from '../metrics.ts';
import { errorReplies, textReply } from '../openapi.ts';

const CHECK_DEADLINE_MS = 5_000;
/** Anybody may ask /ready, as often as they like: an answer is given again for this long, ms. */
const READY_FRESH_MS = 1_000;

const Readiness = z.object({
  ready: z.boolean(),
  /** Every part that must work; `problem` is null when it does. */
  parts: z.array(z.object({ name: z.string(), problem: z.string().nullable() })),
});
type Readiness = z.infer<typeof Readiness>;

export function addOperationRoutes(app: Api, context: RouteContext, metrics: Metrics): void {
  const look = async (log: FastifyBaseLogger): Promise<Readiness> => {
    // One call for both parts that are about hosts.
    const hosts = context.services.hosts.list();
    const checks = [...context.readiness, hostCheck(hosts), imageCheck(hosts)];
    const parts = await Promise.all(
      checks.map(async ({ name, check }) => ({ name, problem: await problemOf(check, log) })),
    );
    return { ready: parts.every(({ problem }) => problem === null), parts };
  };
  const freshMs = context.timing?.readyMs ?? READY_FRESH_MS;
  let last: { answer: Promise<Readiness>; until: number } | undefined;
  const readiness = (log: FastifyBaseLogger): Promise<Readiness> => {
    if (last !== undefined && performance.now() < last.until) return last.answer;
    // Shared while it is under way, however long that takes.
    const mine = { answer: look(log), until: Number.POSITIVE_INFINITY };
    const settle = () => {
      mine.until = performance.now() + freshMs;
    };
    mine.answer.then(settle, settle);
    last = mine;
    return mine.answer;
  };

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
      const answer = await readiness(request.log);
      return reply.code(answer.ready ? 200 : 503).send(answer);
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

function hostCheck(list: Promise<Host[]>): ReadinessCheck {
  return {
    name: 'host_service',
    async check() {
      const hosts = await list;
      if (hosts.length === 0) return 'no host service is known';
      if (hosts.some((host) => host.ok)) return undefined;
      return hosts.flatMap((host) => (host.problems.length === 0 ? ['not ok'] : host.problems)).join('; ');
    },
  };
}

function imageCheck(list: Promise<Host[]>): ReadinessCheck {
  return {
    name: 'image',
    async check() {
      const hosts = await list;
      return hosts.some((host) => host.image !== null) ? undefined : 'no host has a golden image';
    },
  };
}
