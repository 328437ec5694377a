/**
 * The genuine controller, started by the harness: `node controller.ts <config.json> <socket>`. Before it starts, the places
 * where a workflow meets DBOS, the host service, an agent and the database are wrapped, so that the controller waits there
 * until the harness lets it go on. Whatever step is added later is a boundary without a change here.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import http from 'node:http';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { DBOS } from '@dbos-inc/dbos-sdk';
import pg from 'pg';
import type { Message } from './boundary.ts';
import { exploreSteps, type Workflow } from './explore.ts';

const socket = connect(process.argv[3] ?? '');
const waiting = new Map<number, () => void>();
let visits = 0;
createInterface({ input: socket })
  .on('error', () => undefined)
  .on('line', (line) => waiting.get(Number(line))?.());
// Without the harness nothing waits any more.
const release = () => {
  for (const go of waiting.values()) go();
};
socket.on('error', release).on('close', release);
const say = (message: Message) => socket.write(`${JSON.stringify(message)}\n`);

interface Place {
  readonly workflowId: string;
  readonly step: string;
}
const places = new AsyncLocalStorage<Place>();

async function visit({ workflowId, step }: Place, what: string): Promise<void> {
  if (socket.destroyed) return;
  const number = ++visits;
  await new Promise<void>((resolve) => {
    waiting.set(number, resolve);
    say({ number, boundary: `${step} ${what}`, workflowId });
  });
  waiting.delete(number);
}

// Steps.
const flows = new Map<string, Workflow>();
const names = new WeakMap<object, string>();
const register = DBOS.registerWorkflow.bind(DBOS);
const runStep = DBOS.runStep.bind(DBOS);
const flowNames = new AsyncLocalStorage<string>();

DBOS.registerWorkflow = (flow, config) => {
  const name = config?.name ?? flow.name;
  flows.set(name, flow as unknown as Workflow);
  const named: typeof flow = async function named(this: unknown, ...args) {
    return flowNames.run(name, () => flow.apply(this as never, args));
  };
  names.set(named, name);
  return register(named, config);
};
DBOS.runStep = async (work, config = {}) => {
  const place = {
    workflowId: DBOS.workflowID ?? '',
    step: `${flowNames.getStore() ?? 'none'}/${config.name ?? work.name}`,
  };
  const result = await runStep(async () => {
    await visit(place, 'before');
    const value = await places.run(place, work);
    await visit(place, 'done');
    return value;
  }, config);
  await visit(place, 'after');
  return result;
};
const launch = DBOS.launch.bind(DBOS);
DBOS.launch = async (options) => {
  say({ steps: await exploreSteps(flows) });
  return launch(options);
};

// Effects on the host service and on agents.
const request = http.request.bind(http) as (options: http.RequestOptions) => http.ClientRequest;
const hold = (options: http.RequestOptions): http.ClientRequest => {
  const sent = request(options);
  const place = places.getStore();
  if (place === undefined || options.method === 'GET') return sent;
  const to = options.socketPath === undefined ? 'agent' : 'host';
  const path = (options.path ?? '').replace(/[a-z]_[a-z0-9]{20}/, ':id').replace(/\?.*/, '');
  const what = `${options.method} ${to} ${path}`;
  const end = sent.end.bind(sent) as (body?: Buffer) => http.ClientRequest;
  const held = (body?: Buffer) => {
    void visit(place, `> before ${what}`).then(() => sent.destroyed || end(body));
    return sent;
  };
  const emit = sent.emit.bind(sent) as (event: string | symbol, ...args: unknown[]) => boolean;
  const announce = (event: string | symbol, ...args: unknown[]) => {
    if (event !== 'response') return emit(event, ...args);
    void visit(place, `> after ${what}`).then(() => emit(event, ...args));
    return true;
  };
  return Object.assign(sent, { end: held, emit: announce });
};
Object.assign(http, { request: hold });

// Changes of state in the database: around the commit that makes one lasting.
const STATE = /^update "polydev"\."(login_sessions|machines)" set "state" = \$1/;
const CLEANED = /^update "polydev"\."login_sessions" set "cleaned_at"/;
const SAVED = /^insert into "polydev"\."(\w+)"/;
const NOT_WORTH = new Set(['events', 'timeline', 'audit', 'audit_log', 'users']);
const changes = new WeakMap<object, string>();
type Query = (this: pg.Client, ...args: unknown[]) => unknown;
const query = pg.Client.prototype.query as Query;
const watched: Query = function watched(...args) {
  const place = places.getStore();
  const [first] = args;
  const text = typeof first === 'string' ? first : undefined;
  if (place === undefined || text === undefined) return query.apply(this, args);
  const [, table] = STATE.exec(text) ?? [];
  const [values] = args.slice(1);
  if (table !== undefined && Array.isArray(values)) {
    changes.set(this, `${table === 'machines' ? 'machine' : 'session'}→${String(values[0])}`);
  } else if (CLEANED.test(text)) {
    changes.set(this, 'session cleaned');
  } else {
    const [, saved] = SAVED.exec(text) ?? [];
    if (saved !== undefined && !NOT_WORTH.has(saved) && !changes.has(this)) changes.set(this, `${saved} row`);
  }
  if (text.toLowerCase() !== 'commit') return query.apply(this, args);
  const change = changes.get(this);
  changes.delete(this);
  if (change === undefined) return query.apply(this, args);
  return (async () => {
    await visit(place, `> before ${change}`);
    const result = await query.apply(this, args);
    await visit(place, `> after ${change}`);
    return result;
  })();
};
pg.Client.prototype.query = watched as typeof pg.Client.prototype.query;

await import('../../controller/main.ts');
