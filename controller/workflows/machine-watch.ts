/**
 * Looks at every machine that is ready, each at times of its own, a few at once. One that does not work is named: in its
 * row, its timeline and the metrics. Nothing is ended: a person may be using what still works.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { MachineHealth } from '../../protocol/api.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { listReadyMachines, recordHealth } from '../store/health.ts';
import type { MachineRow } from '../store/tables.ts';
import { agentOfRow, type Context } from './context.ts';
import { type Load, patienceFor } from './deadlines.ts';
import { lookAt } from './look.ts';

/** Looks at the same time. */
const AT_ONCE = 4;
/** A look, with all that it may ask, ends by then, ms. */
const LOOK_DEADLINE_MS = 120_000;
/** So often the list of machines is read, as a part of the time between two looks at one. */
const TICKS = 15;

/** Until the controller closes. Never rejects. */
export async function keepWatch(context: Context): Promise<void> {
  const { closing, log, settings } = context;
  const [least, most] = settings.lookEveryMs;
  const spread = (): number => least + Math.random() * (most - least);
  const due = new Map<MachineId, number>();
  const under = new Map<MachineId, Promise<void>>();
  let complained = false;
  while (!closing.aborted) {
    try {
      const rows = await listReadyMachines(context.db, context.host.id);
      const ready = new Set(rows.map(({ id }) => id));
      for (const id of due.keys()) if (!ready.has(id)) due.delete(id);
      for (const row of rows) {
        // New ones come at any time within the span, so that looks never come in a crowd.
        const at = due.get(row.id) ?? Date.now() + Math.random() * least;
        due.set(row.id, at);
        if (Date.now() < at || under.has(row.id) || under.size >= AT_ONCE) continue;
        due.set(row.id, Date.now() + spread());
        const look = lookOnce(context, row)
          .catch((error: unknown) => {
            if (closing.aborted) return;
            // What is known of it stays. That its host is away is told elsewhere.
            const named = PolydevError.from(error);
            const away = ['host_unreachable', 'not_found', 'conflict'].includes(named.code);
            log[away ? 'debug' : 'warn']({ machine: row.id, err: named }, 'a machine was not seen');
          })
          .finally(() => under.delete(row.id));
        under.set(row.id, look);
      }
      complained = false;
    } catch (error) {
      if (!complained) log.warn({ err: PolydevError.from(error) }, 'ready machines could not be listed');
      complained = true;
    }
    await sleep(least / TICKS, undefined, { signal: closing, ref: false }).catch(() => undefined);
  }
  await Promise.all(under.values());
}

async function lookOnce(context: Context, row: MachineRow): Promise<void> {
  const signal = AbortSignal.any([context.closing, AbortSignal.timeout(LOOK_DEADLINE_MS)]);
  const { host } = context;
  const known = await host.get(row.id, signal);
  // Its end is the reconciler's to tell.
  if (known?.state !== 'running') return;
  const load: Load | undefined = (await host.health(signal)).load;
  const patience = patienceFor(known.slowdown ?? 1, load);
  const { diagnosis } = await lookAt({ host, agent: agentOfRow(context, row), patience, signal });
  const health: MachineHealth = {
    state: diagnosis === null ? 'healthy' : 'degraded',
    since: new Date().toISOString(),
    diagnosis,
  };
  if ((await recordHealth(context.db, row, health)) !== 'changed') return;
  if (diagnosis === null) {
    context.log.info({ machine: row.id }, 'the machine works again');
    return;
  }
  context.log.warn({ machine: row.id, diagnosis: diagnosis.name }, 'a ready machine does not work');
  context.meters.degraded({ name: diagnosis.name, kind: row.kind });
}
