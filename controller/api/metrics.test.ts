/** That what operators build on is true: the list of metrics, the example alerts, their runbooks. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { DIAGNOSES } from '../../protocol/diagnoses.ts';
import { CHECKPOINTS } from '../../protocol/machine.ts';
import { bearer, createTestApi, type TestApi } from '../../testkit/fakes/api.ts';
import { SummedHistogram } from './summed-histogram.ts';

const ROOT = path.resolve(import.meta.dirname, '../..');
const read = (file: string) => readFile(path.join(ROOT, file), 'utf8');
/** Of Node itself: prom-client's own. */
const OF_NODE = /^polydev_(process|nodejs)_/;

const Rules = z.object({
  groups: z.array(
    z.object({
      rules: z.array(
        z.object({
          alert: z.string(),
          expr: z.string(),
          annotations: z.object({ summary: z.string(), runbook_url: z.string() }),
        }),
      ),
    }),
  ),
});

let api: TestApi;
beforeAll(async () => {
  api = await createTestApi();
});
afterAll(() => api[Symbol.asyncDispose]());

/** Name -> labels and type, of all that is registered, but Node's. */
async function registered(): Promise<Map<string, { labels: string[]; type: string }>> {
  const all = await api.services.meters.registry.getMetricsAsJSON();
  const types = new Map(all.map(({ name, type }) => [name, String(type)]));
  const known = new Map<string, { labels: string[]; type: string }>();
  for (const metric of api.services.meters.registry.getMetricsAsArray()) {
    const { name } = metric;
    if (OF_NODE.test(name)) continue;
    // Every metric of prom-client keeps the names it was made with; its types do not say so.
    const { labelNames } = z.object({ labelNames: z.array(z.string()) }).parse(metric);
    known.set(name, { labels: labelNames.toSorted(), type: types.get(name) ?? '' });
  }
  return known;
}

const scrape = async () =>
  (await api.app.inject({ url: '/metrics', headers: bearer(api.keys.operator) })).body;

describe('the metrics', () => {
  it('are the ones that docs/operations.md lists, with their labels', async () => {
    const rows = [...(await read('docs/operations.md')).matchAll(/^\| `(polydev_\w+)` \| ([^|]*) \|/gm)];
    const documented = rows.map(([, name = '', labels = '']) => [
      name,
      labels
        .split(',')
        .map((l) => l.trim())
        .toSorted(),
    ]);
    const known = [...(await registered())].map(([name, { labels }]) => [name, labels]);
    expect(known.length).toBeGreaterThan(15);
    expect(Object.fromEntries(documented)).toEqual(Object.fromEntries(known));
  });

  it('count what was told, under closed labels', async () => {
    const { meters } = api.services;
    meters.checkpoint({ driver: 'namespace', kind: 'browser', checkpoint: 'desktop', durationMs: 1_400 });
    meters.checkpoint({ driver: null, kind: 'cli', checkpoint: 'agent', durationMs: 90 });
    meters.diagnosed({ name: 'dns_dead', driver: 'namespace', kind: 'browser' });
    meters.degraded({ name: 'guest_disk_full', kind: 'cli' });
    meters.recovered('machine_lost');
    const text = await scrape();
    // There before its first count: Prometheus sees no increase of a counter that appears with one.
    expect(text).toContain(
      'polydev_machine_failures_total{diagnosis="unknown",driver="namespace",kind="cli"} 0',
    );
    for (const line of [
      'polydev_machine_checkpoint_seconds_bucket{le="1",driver="namespace",kind="browser",checkpoint="desktop"} 0',
      'polydev_machine_checkpoint_seconds_bucket{le="2",driver="namespace",kind="browser",checkpoint="desktop"} 1',
      'polydev_machine_checkpoint_seconds_sum{driver="namespace",kind="browser",checkpoint="desktop"} 1.4',
      'polydev_machine_checkpoint_seconds_count{driver="unknown",kind="cli",checkpoint="agent"} 1',
      'polydev_machine_failures_total{diagnosis="dns_dead",driver="namespace",kind="browser"} 1',
      'polydev_machine_degradations_total{diagnosis="guest_disk_full",kind="cli"} 1',
      'polydev_recoveries_total{what="machine_lost"} 1',
    ]) {
      expect(text.split('\n')).toContain(line);
    }
  });

  it('say what hosts say, and of one that does not answer only that', async () => {
    const [host] = api.services.hostList;
    if (host === undefined) throw new Error('the fake has no host');
    const silent = { promisedDiskMiB: null, evidence: null, load: null, addresses: null, recovered: null };
    const away = { ...host, id: 'away', ok: false, ...silent };
    api.services.hostList = [host, away];
    const lines = (await scrape()).split('\n');
    expect(lines).toContain('polydev_host_up{host="local"} 1');
    expect(lines).toContain('polydev_host_memory_available_bytes{host="local"} 6291456000');
    expect(lines).toContain('polydev_host_addresses{host="local",state="free"} 59');
    expect(lines).toContain('polydev_host_evidence_bytes{host="local"} 1048576');
    expect(lines.filter((line) => line.includes('"away"'))).toEqual(['polydev_host_up{host="away"} 0']);
    api.services.hostList = [host];
    expect(await scrape()).not.toContain('"away"');
  });

  it('have few series, whatever happens: the sum of their closed labels', () => {
    // What grows with use is requests by route and sessions by code, both bounded by their catalogues.
    const checkpoints = 3 * 2 * CHECKPOINTS.length * 17;
    const failures = Object.keys(DIAGNOSES).length * 4 * 2;
    const degradations = Object.keys(DIAGNOSES).length * 2;
    expect(checkpoints + failures + degradations).toBeLessThan(2_000);
  });
});

describe('a histogram of sums', () => {
  it('adds what it gets and writes it as Prometheus reads it', async () => {
    const registry = new Registry();
    const steps = new SummedHistogram({
      name: 'took',
      help: 'how long',
      label: 'step',
      bounds: [1, 2],
      registry,
    });
    steps.add('one', { count: 2, seconds: 3.5, within: [0, 1] });
    steps.add('one', { count: 1, seconds: 0.5, within: [1, 1] });
    expect(await registry.metrics()).toBe(
      [
        '# HELP took how long',
        '# TYPE took histogram',
        'took_bucket{le="1",step="one"} 1',
        'took_bucket{le="2",step="one"} 2',
        'took_bucket{le="+Inf",step="one"} 3',
        'took_sum{step="one"} 4',
        'took_count{step="one"} 3',
        '',
      ].join('\n'),
    );
  });
});

describe('the example alerts', () => {
  const rules = async () =>
    Rules.parse(parse(await read('docs/alerts.yml'))).groups.flatMap((group) => group.rules);

  it('use metrics and labels that exist', async () => {
    const known = await registered();
    for (const { alert, expr, annotations } of await rules()) {
      const used = [...expr.matchAll(/\b(polydev_\w+)(?:\{([^}]*)\})?/g)];
      expect(used.length, alert).toBeGreaterThan(0);
      const labels = new Set<string>();
      for (const [, name = '', matchers = ''] of used) {
        const base = known.has(name) ? name : name.replace(/_(bucket|sum|count)$/, '');
        const metric = known.get(base);
        expect(metric, `${alert}: ${name}`).toBeDefined();
        if (base !== name) expect(metric?.type, `${alert}: ${name}`).toBe('histogram');
        for (const label of metric?.labels ?? []) labels.add(label);
        for (const [, label = ''] of matchers.matchAll(/(\w+)\s*(?:=|!=|=~|!~)\s*"/g)) {
          expect(metric?.labels, `${alert}: ${label}`).toContain(label);
        }
      }
      for (const [, label = ''] of annotations.summary.matchAll(/\$labels\.(\w+)/g)) {
        expect([...labels], `${alert}: ${label}`).toContain(label);
      }
    }
  });

  it('have a section each in the page that they name, and there is no other', async () => {
    const page = await read('docs/operations.md');
    const sections = [...page.matchAll(/^### (.+)$/gm)].map(([, title = '']) => title.toLowerCase());
    const named: string[] = [];
    for (const { alert, annotations } of await rules()) {
      expect(annotations.runbook_url).toBe(`docs/operations.md#${alert.toLowerCase()}`);
      named.push(alert.toLowerCase());
    }
    expect(named.length).toBeGreaterThan(8);
    expect(sections.toSorted()).toEqual(named.toSorted());
  });
});
