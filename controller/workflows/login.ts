/**
 * The order of a login session's steps, as one durable workflow. This file and machine-flows.ts make up the
 * application version under which DBOS recovers: a change of them ends the sessions that are under way by name.
 */
import { DBOS } from '@dbos-inc/dbos-sdk';
import { PolydevError } from '../../protocol/errors.ts';
import type { SessionId } from '../../protocol/ids.ts';
import type { Context } from './context.ts';
import {
  capture,
  cleanUp,
  endSession,
  install,
  type LoginStep,
  prepareBrowserMachine,
  prepareCliMachine,
  startLogin,
  verify,
  waitForPerson,
} from './login-steps.ts';
import { attempt } from './result.ts';

const STEPS: readonly (readonly [string, LoginStep])[] = [
  ['browser_machine', prepareBrowserMachine],
  ['login_page', startLogin],
  ['person', waitForPerson],
  ['capture', capture],
  ['cli_machine', prepareCliMachine],
  ['install', install],
  ['verify', verify],
];

export type LoginFlow = (id: SessionId) => Promise<void>;

export const loginWorkflowId = (id: SessionId): string => `login-${id}`;

/** Registers the workflow; to be called once, before DBOS is launched. */
export function registerLogin(context: Context): LoginFlow {
  const flow: LoginFlow = async (id) => {
    for (const [name, work] of STEPS) {
      const result = await DBOS.runStep(() => attempt(context.closing, () => work(context, id)), { name });
      if (!result.ok) {
        await DBOS.runStep(() => attempt(context.closing, () => endSession(context, id, result.error)), {
          name: 'end',
        });
        break;
      }
    }
    await DBOS.runStep(() => attempt(context.closing, () => cleanUp(context, id)), { name: 'clean_up' });
  };
  return DBOS.registerWorkflow(flow, { name: 'login' });
}

/** Ends and cleans up a session whose own workflow cannot go on. */
export function registerAbandon(context: Context): LoginFlow {
  const flow: LoginFlow = async (id) => {
    const error = new PolydevError(
      'controller_restarted',
      'the controller was started again while the session was under way and could not take it up',
    ).toReport();
    await DBOS.runStep(() => attempt(context.closing, () => endSession(context, id, error)), { name: 'end' });
    await DBOS.runStep(() => attempt(context.closing, () => cleanUp(context, id)), { name: 'clean_up' });
  };
  return DBOS.registerWorkflow(flow, { name: 'abandon-login' });
}
