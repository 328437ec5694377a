/** What can be seen of a host before a machine starts: the schema of `./polydev doctor --json` and of the API. */
import { z } from 'zod';

/**
 * `ok`: works. `warn`: machines start, but something about them will not work or soon not work. `fail`: a machine could
 * not start. `unknown`: could not be tried; `evidence` says why.
 */
export const CheckState = z.enum(['ok', 'warn', 'fail', 'unknown']);
export type CheckState = z.infer<typeof CheckState>;

export const DoctorCheck = z.object({
  /** Short and stable, for scripts. */
  name: z.string(),
  state: CheckState,
  /** What was seen. */
  evidence: z.string(),
  /** The command that mends it, or what to change; null when nothing is to be done. */
  remedy: z.string().nullable(),
});
export type DoctorCheck = z.infer<typeof DoctorCheck>;

export const DoctorReport = z.object({
  at: z.iso.datetime({ precision: 3 }),
  /** No check failed. */
  ok: z.boolean(),
  /** In the order in which they depend on each other. */
  checks: z.array(DoctorCheck),
});
export type DoctorReport = z.infer<typeof DoctorReport>;
