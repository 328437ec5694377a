/** Prometheus metrics of one controller. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Services } from '../services.ts';
import type { OpenStreams } from '../streams/watch.ts';
import type { Api } from './context.ts';

export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

const STEP_BUCKETS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900];

/**
 * Requests are counted as they are answered. Sessions and machines are read from their lists at every scrape; a session
 * that ended since the last scrape is counted then, so more than 200 endings between two scrapes are counted short.
 */
export function addMetrics(app: Api, services: Services, openStreams: OpenStreams): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry, prefix: 'polydev_' });
  const startedAt = new Date().toISOString();

  const requests = new Histogram({
    name: 'polydev_http_request_seconds',
    help: 'HTTP requests by route and status; streams count when they end',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.005, 0.02, 0.1, 0.5, 2, 10],
    registers,
  });
  app.addHook('onResponse', async (request, reply) => {
    // The pattern, not the path: ids would make a series each.
    const route = request.routeOptions.url ?? 'unknown';
    requests.observe({ method: request.method, route, status: reply.statusCode }, reply.elapsedTime / 1000);
  });

  const ended = new Counter({
    name: 'polydev_sessions_ended_total',
    help: 'Login sessions by the state in which they ended, since the start of this process',
    labelNames: ['provider', 'realm', 'state'],
    registers,
  });
  const steps = new Histogram({
    name: 'polydev_session_step_seconds',
    help: 'Duration of the steps of ended login sessions',
    labelNames: ['step'],
    buckets: STEP_BUCKETS,
    registers,
  });
  const active = new Gauge({
    name: 'polydev_sessions_active',
    help: 'Login sessions that have not ended, by state',
    labelNames: ['state'],
    registers,
  });
  const machines = new Gauge({
    name: 'polydev_machines',
    help: 'Machines that are not gone, by kind and state',
    labelNames: ['kind', 'state'],
    registers,
  });
  const streams = new Gauge({
    name: 'polydev_open_streams',
    help: 'Streams that are open now, by purpose',
    labelNames: ['purpose'],
    registers,
  });

  let counted = new Set<string>();
  const collect = async () => {
    const [sessionList, machineList] = await Promise.all([
      services.logins.list({}),
      services.machines.list({}),
    ]);
    active.reset();
    const seen = new Set<string>();
    for (const session of sessionList) {
      if (session.endedAt === null) active.inc({ state: session.state });
      else if (session.endedAt >= startedAt) {
        seen.add(session.id);
        if (counted.has(session.id)) continue;
        ended.inc({ provider: session.provider, realm: session.realm, state: session.state });
        for (const event of session.timeline) {
          if (event.kind === 'step' && event.durationMs !== null) {
            steps.observe({ step: event.name }, event.durationMs / 1000);
          }
        }
      }
    }
    // Those that fell off the list cannot come back to it.
    counted = seen;
    machines.reset();
    for (const machine of machineList) {
      if (machine.endedAt === null) machines.inc({ kind: machine.kind, state: machine.state });
    }
    streams.reset();
    for (const [purpose, count] of openStreams.count()) streams.set({ purpose }, count);
  };

  // Two scrapes at once would count an ending twice.
  let turn: Promise<unknown> = Promise.resolve();
  return {
    contentType: registry.contentType,
    async text() {
      const mine = turn.then(collect);
      turn = mine.catch(() => undefined);
      await mine;
      return registry.metrics();
    },
  };
}
