/** Prometheus metrics of one controller. docs/operations.md lists all of them; a test compares. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, type Registry } from 'prom-client';
import type { Services } from '../services.ts';
import type { OpenStreams } from '../streams/watch.ts';
import type { Api } from './context.ts';
import { addHostMetrics } from './host-metrics.ts';
import { SummedHistogram } from './summed-histogram.ts';

export interface Metrics {
  readonly contentType: string;
  readonly registry: Registry;
  text(): Promise<string>;
}

const STEP_BUCKETS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900];

/**
 * Requests are counted as they are answered. Sessions and machines are counted by the database at every scrape; what was
 * over since the last scrape is added then. Hosts are asked at every scrape.
 */
export function addMetrics(app: Api, services: Services, openStreams: OpenStreams): Metrics {
  const { registry } = services.meters;
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
    help: 'Login sessions by the state in which they ended and its error code, since the start of this process',
    labelNames: ['provider', 'realm', 'state', 'code'],
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
  const degraded = new Gauge({
    name: 'polydev_machines_degraded',
    help: 'Ready machines that do not work, by the name of the diagnosis',
    labelNames: ['diagnosis', 'kind'],
    registers,
  });
  const streams = new Gauge({
    name: 'polydev_open_streams',
    help: 'Streams that are open now, by purpose',
    labelNames: ['purpose'],
    registers,
  });
  const steps = new SummedHistogram({
    name: 'polydev_session_step_seconds',
    help: 'Duration of the steps of ended login sessions',
    label: 'step',
    bounds: STEP_BUCKETS,
    registry,
  });
  const hosts = addHostMetrics(registry);

  let since = new Date();
  const collect = async () => {
    const [counts, known] = await Promise.all([
      services.operation.statistics(since, STEP_BUCKETS),
      services.hosts.list(),
    ]);
    since = counts.upTo;
    active.reset();
    for (const { state, count } of counts.active) active.inc({ state }, count);
    machines.reset();
    for (const { kind, state, count } of counts.machines) machines.inc({ kind, state }, count);
    degraded.reset();
    for (const { count, ...labels } of counts.degraded) degraded.inc(labels, count);
    for (const { count, ...labels } of counts.ended) ended.inc(labels, count);
    for (const { step, ...more } of counts.steps) steps.add(step, more);
    hosts.show(known);
    streams.reset();
    for (const [purpose, count] of openStreams.count()) streams.set({ purpose }, count);
  };

  // Two scrapes at once would count an ending twice.
  let turn: Promise<unknown> = Promise.resolve();
  return {
    contentType: registry.contentType,
    registry,
    async text() {
      const mine = turn.then(collect);
      turn = mine.catch(() => undefined);
      await mine;
      return registry.metrics();
    },
  };
}
