/** Credentials as `api/` uses them: metadata, and removal. */
import { PolydevError } from '../../protocol/errors.ts';
import type { MachineState } from '../../protocol/lifecycles.ts';
import type { Credentials } from '../services.ts';
import { recordAudit } from '../store/audit.ts';
import {
  deleteCredential,
  getCredential,
  hasOpenLogin,
  listCredentials,
  toCredential,
} from '../store/credentials.ts';
import { getMachine } from '../store/machines.ts';
import { agentOf, type Context } from './context.ts';
import type { MachineFlows } from './machine-flows.ts';
import { runMachineFlow } from './machine-service.ts';
import { readMachine } from './machine-steps.ts';

/** States of a machine whose disk may have the file. */
const AWAKE_OR_ASLEEP: readonly MachineState[] = [
  'requested',
  'creating',
  'booting',
  'ready',
  'hibernating',
  'hibernated',
  'resuming',
  'stopped',
];

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
      const { userId, provider, account, realm } = row;
      if (await hasOpenLogin(db, { userId, provider, account, realm })) {
        throw new PolydevError('conflict', `a login of credential ${id} is under way`);
      }
      const holder = row.holderMachineId === null ? undefined : await getMachine(db, row.holderMachineId);
      const forget = async () => {
        await deleteCredential(db, id);
        await recordAudit(db, { who: userId, action: 'credential.remove', target: id });
      };
      // The disk of one that is going goes with it.
      if (holder === undefined || !AWAKE_OR_ASLEEP.includes(holder.state)) return forget();
      // The file is on the private disk of a stopped machine too: it is started for this and stopped again.
      const asleep = holder.state === 'stopped';
      if (holder.state !== 'ready') await runMachineFlow(context, flows.start, 'start', holder);
      try {
        await agentOf(context, holder.id).deleteCredential(provider);
        await forget();
      } finally {
        if (asleep) await runMachineFlow(context, flows.stop, 'stop', await readMachine(context, holder.id));
      }
    },
  };
}
