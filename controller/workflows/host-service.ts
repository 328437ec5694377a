/** Hosts as `api/` uses them. One host for now; placement comes with the second. */
import type { DoctorCheck } from '../../protocol/doctor.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { Hosts } from '../services.ts';
import { listSeenHosts, recordHost } from '../store/hosts.ts';
import type { Context } from './context.ts';
import { poolState } from './pool.ts';

/** @param ownChecks what only the controller can see; never rejects */
export function createHosts(context: Context, ownChecks: () => Promise<DoctorCheck[]>): Hosts {
  const { db, host } = context;
  return {
    async list() {
      try {
        const health = await host.health(AbortSignal.timeout(5_000));
        const { version: _version, ...facts } = health;
        await recordHost(db, { id: host.id, driver: facts.driver, image: facts.image });
        return [{ id: host.id, ...facts, pool: await poolState(context, health) }];
      } catch (error) {
        const named = PolydevError.from(error, 'host_unreachable');
        const seen = (await listSeenHosts(db)).find((row) => row.id === host.id);
        const none = { total: 0, available: 0 };
        return [
          {
            id: host.id,
            driver: seen?.driver ?? 'unknown',
            image: seen?.image ?? null,
            ok: false,
            problems: [`${named.code}: ${named.message}`],
            machines: 0,
            memoryMiB: none,
            diskMiB: none,
            promisedDiskMiB: null,
            evidence: null,
            load: null,
            addresses: null,
            recovered: null,
            pool: await poolState(context, undefined),
          },
        ];
      }
    },
    async doctor(id) {
      if (id !== host.id) throw new PolydevError('not_found', `there is no host ${id}`);
      const [found, own] = await Promise.all([host.doctor(), ownChecks()]);
      const checks = [...found.checks, ...own];
      return { at: found.at, ok: checks.every(({ state }) => state !== 'fail'), checks };
    },
  };
}
