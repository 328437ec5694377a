/** What an operator may change while Polydev runs: kept in the database, the same for every controller on it. */
import { z } from 'zod';

const Seconds = z
  .number()
  .int()
  .min(0)
  .max(30 * 86_400);

export const Settings = z.strictObject({
  /** Machines of logins that failed are kept for `keepForSeconds`, so that somebody can look. A login may say otherwise. */
  keepFailed: z.boolean(),
  /** How long a machine of a login that failed or ran out of time stays when it is not kept. 0: it goes at once. */
  failedGraceSeconds: Seconds,
  keepForSeconds: Seconds,
  /** Of those that stay for either reason, the newest are kept and the others go: they hold memory and disk. */
  keepAtMost: z.number().int().min(0).max(100),
  /** How long a machine that is in no database stays at its host: a restored database may be older than it. */
  orphanGraceSeconds: Seconds,
  /** Of one person, kept machines not counted. */
  machinesPerPerson: z.number().int().min(1).max(1000),
  /** The sizes of the private disks of one person's machines together, kept machines not counted. */
  diskMiBPerPerson: z.number().int().min(16).max(16_777_216),
  /** A CLI machine without terminal, command or stream for this long hibernates, where its host can. 0: never. */
  hibernateAfterSeconds: Seconds,
  /** Browser machines that are booted before anybody asks: a login starts at once, each holds memory meanwhile. */
  warmMachines: z.number().int().min(0).max(50),
  /** The same for logins at the test identity provider. */
  warmTestMachines: z.number().int().min(0).max(50),
  /** Between the starts of two of them. */
  warmRefillSeconds: Seconds,
});
export type Settings = z.infer<typeof Settings>;

export const SETTINGS_DEFAULTS: Settings = {
  keepFailed: false,
  failedGraceSeconds: 0,
  keepForSeconds: 6 * 3600,
  keepAtMost: 5,
  orphanGraceSeconds: 600,
  machinesPerPerson: 10,
  diskMiBPerPerson: 65_536,
  hibernateAfterSeconds: 900,
  warmMachines: 0,
  warmTestMachines: 0,
  warmRefillSeconds: 5,
};

export const SettingsPatch = Settings.partial();
export type SettingsPatch = z.infer<typeof SettingsPatch>;
