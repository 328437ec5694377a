/** Credentials as `api/` uses them: metadata, and removal. */
import { PolydevError } from '../../protocol/errors.ts';
import type { Credentials } from '../services.ts';
import { recordAudit } from '../store/audit.ts';
import { deleteCredential, getCredential, listCredentials, toCredential } from '../store/credentials.ts';
import { getMachine } from '../store/machines.ts';
import { agentOf, type Context } from './context.ts';
import type { MachineFlows } from './machine-flows.ts';
import { runMachineFlow } from './machine-service.ts';

export function createCredentials(context: Context, flows: MachineFlows): Credentials {
  const { db } = context;
  return {
    list: async (filter) => (await listCredentials(db, filter)).map(toCredential),
    async get(id) {
      const row = await getCredential(db, id);
      return row === undefined ? undefined : toCredential(row);
    },
    async remove(id) {
      const row = await getCredential(db, id);
      if (row === undefined) throw new PolydevError('credential_missing', `there is no credential ${id}`);
      const holder = row.holderMachineId === null ? undefined : await getMachine(db, row.holderMachineId);
      // The file is on the private disk of a stopped machine too: it is started for this and stopped again.
      const asleep = holder?.state === 'stopped';
      if (holder !== undefined && asleep) await runMachineFlow(flows.start, 'start', holder.id);
      if (holder !== undefined && (asleep || holder.state === 'ready')) {
        await agentOf(context, holder.id).deleteCredential(row.provider);
      }
      await deleteCredential(db, id);
      await recordAudit(db, { who: row.userId, action: 'credential.remove', target: id });
      if (holder !== undefined && asleep) await runMachineFlow(flows.stop, 'stop', holder.id);
    },
  };
}
