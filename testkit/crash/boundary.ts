/**
 * crash/: kills each process of a real installation at every step boundary of every workflow, and at random moments,
 * and looks whether everything comes right again and nothing is left over.
 *
 * This file says what a boundary is called, on both sides of the socket between the controller under test and the harness.
 */
import { z } from 'zod';

/**
 * A place in a workflow where the controller waits for the harness. `before` a step, `done` when its work is over but not yet
 * recorded (it will be repeated), `after` it is recorded. Within a step the same for each effect on another process.
 */
export const Visit = z.object({
  /** Answered with the same number. */
  number: z.number(),
  /** For example `login/capture done` or `login/capture > before session→storing`. */
  boundary: z.string(),
  workflowId: z.string(),
});
export type Visit = z.infer<typeof Visit>;

/** What the controller says: first all steps that its workflows can take, then each visit. */
export const Message = z.union([z.object({ steps: z.array(z.string()) }), Visit]);
export type Message = z.infer<typeof Message>;

/** The step a boundary belongs to: `login/capture`. */
export const stepOf = (boundary: string): string => boundary.split(' ')[0] ?? '';
