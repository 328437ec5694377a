/** Finds every step that the workflows can take, from the workflows themselves: by running them with steps that do nothing. */
import { DBOS } from '@dbos-inc/dbos-sdk';
import { failure, success } from '../../controller/workflows/result.ts';
import { PolydevError } from '../../protocol/errors.ts';

export type Workflow = (id: string) => Promise<unknown>;

/** No workflow of ours has as many; a loop that never ends on failures shall end here. */
const MAX_STEPS = 100;

/**
 * Every `<workflow>/<step>`: as each workflow goes when all steps succeed, and when the first, the second, ... fails. What a
 * workflow does outside its steps must depend on their results only (DBOS asks for that), so nothing else is needed.
 */
export async function exploreSteps(flows: ReadonlyMap<string, Workflow>): Promise<string[]> {
  const found = new Set<string>();
  const genuine = DBOS.runStep;
  try {
    for (const [name, flow] of flows) {
      for (let failing = -1, count = 1; failing < count; failing++) {
        let index = 0;
        DBOS.runStep = (async (work: () => unknown, config: { name?: string } = {}) => {
          if (index >= MAX_STEPS) throw new Error(`workflow ${name} takes more than ${MAX_STEPS} steps`);
          found.add(`${name}/${config.name ?? work.name}`);
          return index++ === failing ? failure(new PolydevError('internal', 'explored')) : success(null);
        }) as typeof DBOS.runStep;
        await flow('explored');
        count = index;
      }
    }
  } finally {
    DBOS.runStep = genuine;
  }
  return [...found];
}
