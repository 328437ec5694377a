/** A few kills with nothing light: the genuine `./polydev up` and its restarts, Chromium, Codex, the test identity provider. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { connectApi } from '../../cli/api.ts';
import { readSettings, settingsPaths } from '../../cli/settings.ts';
import { signInOnDesktop } from '../../cli/test-person.ts';
import { lacking } from '../../host/testing/fixture.ts';
import { Session } from '../../protocol/api.ts';
import type { SessionId } from '../../protocol/ids.ts';
import { isFinal, type SessionState } from '../../protocol/lifecycles.ts';
import { type Installation, install } from '../e2e/installation.ts';
import { NO_TRACES, tracesOf } from '../e2e/leaks.ts';
import { TEST_PERSON } from '../idp/people.ts';
import type { ProcessName } from './rig.ts';

const missing = lacking({ image: true });
const SESSION_SECONDS = 150;

const CASES: readonly (readonly [SessionState, ProcessName, string])[] = [
  ['preparing', 'controller', 'completed'],
  ['preparing', 'host', 'completed'],
  ['preparing', 'postgres', 'completed'],
  ['waiting_for_person', 'host', 'completed'],
  ['waiting_for_person', 'postgres', 'completed'],
  ['waiting_for_person', 'machine', 'machine_exited'],
  ['installing', 'controller', 'completed'],
];

describe.skipIf(missing !== undefined)(`kills of genuine parts (needs ${missing ?? 'nothing more'})`, () => {
  let polydev: Installation;
  beforeAll(async () => {
    polydev = await install();
  });
  afterAll(async () => {
    await polydev?.[Symbol.asyncDispose]();
  });

  const pidsOf = async (what: ProcessName): Promise<number[]> => {
    if (what === 'controller') return [await polydev.pidOf('controller/main.ts')];
    if (what === 'host') return [await polydev.pidOf('host/main.ts')];
    const paths = settingsPaths(readSettings({ data: polydev.dataDir }));
    if (what === 'postgres') {
      return [Number.parseInt(await readFile(path.join(paths.postgresData, 'postmaster.pid'), 'utf8'), 10)];
    }
    const folder = path.join(paths.hostData, 'machines');
    const pids: number[] = [];
    for (const id of await readdir(folder)) {
      const text = await readFile(path.join(folder, id, 'driver.json'), 'utf8').catch(() => undefined);
      if (text !== undefined) pids.push(z.object({ pid: z.number() }).parse(JSON.parse(text)).pid);
    }
    return pids;
  };
  const signIn = async (id: SessionId, signal: AbortSignal) => {
    const api = await connectApi(readSettings({ data: polydev.dataDir }));
    const person = { ...TEST_PERSON, consent: 'allow' } as const;
    await signInOnDesktop(api, id, { provider: 'codex', person, signal, onStep: () => undefined });
  };
  const browserMachines = async () =>
    (await polydev.machines()).filter(({ kind, state }) => kind === 'browser' && state !== 'destroyed');

  it.each(CASES)('%s: %s is killed', async (state, what, end) => {
    const { id } = await polydev.api('POST', '/api/auth/start', Session, {
      provider: 'codex',
      realm: 'test',
      userId: `${state}-${what}`.replaceAll('_', '-'),
    });
    let killed = false;
    let person: Promise<void> | undefined;
    const limit = AbortSignal.timeout(SESSION_SECONDS * 1000);
    let session: Session;
    do {
      session = await polydev.sessionUntil(id, () => true, 60);
      if (!killed && session.state === state) {
        killed = true;
        const said = polydev.log.length;
        for (const pid of await pidsOf(what)) process.kill(pid, 'SIGKILL');
        // It says so, calmly, and says when it is well again.
        if (what !== 'machine') {
          const news = () => polydev.log.slice(said).join('\n');
          await expect
            .poll(news, { timeout: 60_000 })
            .toMatch(/ended.*starting it again[\s\S]*running again/);
        }
      } else if (session.state === 'waiting_for_person' && person === undefined) {
        // Beside the looking: what comes after may be over in a moment. Who loses the desktop tries again.
        person = signIn(id, limit)
          .catch(() => undefined)
          .finally(() => {
            person = undefined;
          });
      }
      await sleep(50);
    } while (!isFinal(session.state) && !limit.aborted);
    await person;
    expect(session.error?.code ?? session.state).toBe(end);
    expect(killed).toBe(true);
    await expect.poll(browserMachines, { timeout: 60_000 }).toEqual([]);
  });

  it('leaves nothing', async () => {
    const run = await polydev.polydev(['machines', 'rm', '--all']);
    expect(run.exitCode, run.stderr).toBe(0);
    await polydev.stop();
    expect(await tracesOf([polydev.instance, polydev.dataDir])).toEqual(NO_TRACES);
  });
});
