/** Injects every fault and prints the table of what was made of it. RECORD_FAULTS=1 also records case.json of each. */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHECKOUT, lacking, lackingForVirtual } from '../../host/testing/fixture.ts';
import { FaultBench, mountsAreOurs, type Outcome } from './bench.ts';
import { CANARIES, type Fault } from './fault.ts';
import { FAULTS, PENDING } from './index.ts';
import { vmHost } from './vm.ts';

/** What a wrong name was made from stays for whoever has to find out. */
async function keepFiles(name: string, evidence: ReadonlyMap<string, Buffer>): Promise<void> {
  const folder = path.join(CHECKOUT, '.artifacts', 'faults', name);
  await mkdir(folder, { recursive: true });
  for (const [file, content] of evidence) await writeFile(path.join(folder, file), content);
}

const missing = lacking({ image: true });
const noVirtual = await lackingForVirtual();

describe.skipIf(missing !== undefined)(`faults (needs ${missing ?? 'nothing more'})`, () => {
  let shared: FaultBench;
  let virtual: FaultBench | undefined;
  const rows: string[][] = [];
  beforeAll(async () => {
    shared = await FaultBench.start();
  });
  afterAll(async () => {
    await shared[Symbol.asyncDispose]();
    await virtual?.[Symbol.asyncDispose]();
    const width = Math.max(
      ...rows.map(([name = '']) => name.length),
      ...Object.keys(PENDING).map((n) => n.length),
    );
    const right = rows.filter(([, , verdict]) => verdict === 'right').length;
    const lines = [
      ...rows.map(
        ([name = '', said = '', verdict = '', ms = '']) =>
          `${name.padEnd(width)}  ${said.padEnd(24)}  ${verdict.padEnd(6)} ${ms.padStart(9)}`,
      ),
      ...Object.entries(PENDING).map(([name, part]) => `${name.padEnd(width)}  pending: needs ${part}`),
      `${right} of ${rows.length} named rightly, ${Object.keys(PENDING).length} pending`,
    ];
    process.stderr.write(`\n${lines.join('\n')}\n`);
  });

  const runOn = async (fault: Fault): Promise<Outcome> => {
    if (fault.driver === 'qemu' && fault.host === undefined) {
      virtual ??= await FaultBench.start(vmHost);
      return virtual.run(fault);
    }
    if (fault.host === undefined) return shared.run(fault);
    await using bench = await FaultBench.start(fault.host);
    return await bench.run(fault);
  };

  for (const fault of FAULTS) {
    const blocked = fault.ownMounts === true && !mountsAreOurs();
    const lacks = fault.driver === 'qemu' ? noVirtual : undefined;
    const needs = blocked
      ? ' (needs a mount namespace of its own: ./polydev test faults)'
      : lacks === undefined
        ? ''
        : ` (needs ${lacks})`;
    it.skipIf(blocked || lacks !== undefined)(`names ${fault.name}${needs}`, async () => {
      const { diagnosis, error, found, evidence, secrets, ready, ms } = await runOn(fault);
      const said = diagnosis?.name ?? 'none';
      const right = said === fault.expect;
      if (!right) await keepFiles(fault.name, evidence);
      rows.push([fault.name, said, right ? 'right' : 'WRONG', `${Math.round(ms)} ms`]);
      if (process.env.RECORD_FAULTS === '1' && found !== undefined) {
        const file = path.join(import.meta.dirname, fault.name, 'case.json');
        await writeFile(file, `${JSON.stringify(found, null, 2)}\n`);
      }
      expect(said, JSON.stringify({ diagnosis, error: error?.toReport(), found }, null, 1)).toBe(
        fault.expect,
      );
      // Certain failures are not waited for.
      expect(error?.code).not.toBe('machine_boot_stalled');
      if (diagnosis !== null) expect(diagnosis.lines.length).toBeGreaterThan(0);
      // The archive is exactly these files and a manifest made from the API's own replies.
      for (const [name, content] of evidence) {
        for (const secret of [...secrets, ...Object.values(CANARIES)]) {
          expect(content.includes(secret), `${name} holds a secret`).toBe(false);
        }
      }
      if (fault.login === true) expect(evidence.get('agent.log')?.toString()).toContain('login: codex: ');
      // Nobody can have signed in at a machine that never became ready: its desktop may be shown.
      const picture = evidence.get('desktop.png');
      if (ready) expect(picture).toBeUndefined();
      if (fault.name === 'chromium-crashes-at-start') expect(picture).toBeDefined();
      if (picture !== undefined) expect(picture.subarray(1, 4).toString()).toBe('PNG');
      if (error !== null && fault.expect !== 'host_disk_full') {
        expect([...evidence.keys()]).toEqual(
          expect.arrayContaining(['diagnosis.json', 'facts-failure.json']),
        );
      }
    });
  }
});
