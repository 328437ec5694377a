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
 * Requests are counted as they are answered. Sessions and machines are counted by the database at every scrape; what was
 * over since the last scrape is added then.
 */
export function addMetrics(app: Api, services: Services, openStreams: OpenStreams): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry, prefix: 'polydev_' });

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

  const steps = new Map<string, StepTotal>();
  let since = new Date();
  const collect = async () => {
    const counts = await services.operation.statistics(since, STEP_BUCKETS);
    since = counts.upTo;
    active.reset();
    for (const { state, count } of counts.active) active.inc({ state }, count);
    machines.reset();
    for (const { kind, state, count } of counts.machines) machines.inc({ kind, state }, count);
    for (const { count, ...labels } of counts.ended) ended.inc(labels, count);
    for (const { step, ...more } of counts.steps) steps.set(step, added(steps.get(step), more));
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
      return `${await registry.metrics()}\n${stepText(steps)}`;
    },
  };
}

interface StepTotal {
  readonly count: number;
  readonly seconds: number;
  readonly within: readonly number[];
}

const added = (before: StepTotal | undefined, more: StepTotal): StepTotal => ({
  count: (before?.count ?? 0) + more.count,
  seconds: (before?.seconds ?? 0) + more.seconds,
  within: more.within.map((count, index) => (before?.within[index] ?? 0) + count),
});

/** The steps of ended sessions as a histogram. prom-client's takes single observations; these are sums of the database. */
function stepText(totals: ReadonlyMap<string, StepTotal>): string {
  const name = 'polydev_session_step_seconds';
  const lines = [
    `# HELP ${name} Duration of the steps of ended login sessions`,
    `# TYPE ${name} histogram`,
    ...[...totals].flatMap(([step, { count, seconds, within }]) => [
      ...STEP_BUCKETS.map((le, index) => `${name}_bucket{le="${le}",step="${step}"} ${within[index] ?? 0}`),
      `${name}_bucket{le="+Inf",step="${step}"} ${count}`,
      `${name}_sum{step="${step}"} ${seconds}`,
      `${name}_count{step="${step}"} ${count}`,
    ]),
  ];
  return `${lines.join('\n')}\n`;
}
