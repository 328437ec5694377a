/**
 * host/diagnosis/: turns what is known of a machine that does not work into a named cause with its proof. Rules are
 * pure functions over a Case, one file each; each is shown by really injected faults in testkit/faults/.
 */
import { z } from 'zod';
import { GuestNetwork } from '../../protocol/agent.ts';
import { ErrorReport } from '../../protocol/errors.ts';
import { ExitReport, MachineKind, Realm, Stamp } from '../../protocol/machine.ts';
import { Facts } from '../evidence/facts.ts';

/** Everything a rule may look at. */
export const Case = z.object({
  kind: MachineKind,
  realm: Realm,
  exit: ExitReport.nullable(),
  /** Why the start, the boot or the login failed; null: nothing failed as far as is known. */
  error: ErrorReport.nullable(),
  /** In the order in which they were reached. */
  stamps: z.array(Stamp),
  /** As the agent said it; null: not known. */
  agentVersion: z.string().nullable(),
  /** As the agent said it; null: not known, or its kernel is the host's. */
  guestNetwork: GuestNetwork.nullable().default(null),
  /** Texts of the evidence, by file name; one that was not kept is absent. */
  texts: z.partialRecord(
    z.enum(['console.log', 'agent.log', 'journal.log', 'runtime.log', 'hypervisor.log']),
    z.string(),
  ),
  /** When it failed, or now for a machine that still runs. */
  facts: Facts.nullable(),
});
export type Case = z.infer<typeof Case>;
