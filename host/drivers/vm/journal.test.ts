/** The journal of genuine guests under QEMU: asked for, and read from the disk when they cannot be asked. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Guest, HostProcess, run } from '../../../testkit/contracts/host-process.ts';
import { CANARIES } from '../../../testkit/faults/fault.ts';
import { auditSettled } from '../../leaks.ts';
import { cgroupOfInstance, cgroupProcesses } from '../../system/cgroups.ts';
import { type Bench, CHECKOUT, lackingForVirtual, newInstance } from '../../testing/fixture.ts';

const missing = await lackingForVirtual();
const BOOT_MS = 180_000;
const LIMITS = { cpus: 2, memoryMiB: 1024, pids: 512, diskMiB: 256 };
/** Twice what the guest's journald waits before it syncs, and time for the sync of an emulated disk. */
const SYNC_SECONDS = 12;

describe.skipIf(missing !== undefined)(
  `the journal of a guest (needs ${missing ?? 'nothing more'})`,
  { timeout: 2 * BOOT_MS + 120_000 },
  () => {
    let bench: Bench;
    let host: HostProcess;
    beforeAll(async () => {
      bench = newInstance();
      bench.config.driver = 'qemu';
      host = new HostProcess(bench.config, CHECKOUT, BOOT_MS);
      await host.serve();
    }, BOOT_MS);
    afterAll(async () => {
      await host.end('SIGTERM');
      const left = await auditSettled(bench.config);
      bench[Symbol.dispose]();
      expect(left).toEqual([]);
    }, 180_000);

    /** The agent answers; a browser machine's desktop is not waited for. */
    async function answering({ spec, agent }: Guest): Promise<void> {
      await host.host.put(spec);
      const signal = AbortSignal.timeout(BOOT_MS);
      for (;;) {
        if ((await agent.health(signal).catch(() => undefined)) !== undefined) return;
        if (signal.aborted) throw new Error(`no agent; console:\n${await host.host.console(spec.id)}`);
        await sleep(200);
      }
    }
    const say = (guest: Guest, ...words: string[]) =>
      run(guest, ['logger', '--priority', 'user.info', '--tag', 'person', '--', ...words]);
    const hypervisor = ({ spec }: Guest, signal: NodeJS.Signals): void => {
      for (const { pid } of cgroupProcesses(`${cgroupOfInstance(bench.config.instance)}/${spec.id}`))
        process.kill(pid, signal);
    };
    const examine = ({ spec }: Guest) => {
      const message = 'it does not answer';
      const error = { code: 'machine_unreachable', message, remedy: '', fault: 'system' } as const;
      return host.host.diagnose(spec.id, { error, stamps: [], agentVersion: null, keep: true });
    };
    const kept = async ({ spec }: Guest): Promise<string> =>
      (await host.host.evidenceFile(spec.id, 'journal.log')).toString('utf8');
    const secrets = [`Authorization: Bearer ${CANARIES.bearer}`, `access_token=${CANARIES.named}`].join(' ');
    const expectNoSecret = (text: string): void => {
      for (const canary of Object.values(CANARIES)) expect(text).not.toContain(canary);
      expect(text).toContain('Authorization: ');
      expect(text).toMatch(/access_token=\[redacted\]/);
    };

    it.for(['cli', 'browser'] as const)(
      'of a %s machine: asked, and from the disk after its hypervisor was killed',
      async (kind) => {
        const guest = host.guest(kind, LIMITS);
        await answering(guest);
        await say(guest, `mark-one ${secrets} eyJ${CANARIES.jwt}.${CANARIES.jwt}`);
        const asked = await guest.agent.journal();
        expect(asked).toMatch(/^\w{3} \d\d \d\d:\d\d:\d\d\.\d{6} \S+ systemd\[1\]: /m);
        expect(asked).toMatch(/ kernel: Linux version /);
        expect(asked).toMatch(/ person\[\d+\]: mark-one /);
        expectNoSecret(asked);

        await run(guest, ['sleep', String(SYNC_SECONDS)]);
        if (kind === 'browser') {
          // It does not answer, and its failure is examined.
          hypervisor(guest, 'SIGSTOP');
          await examine(guest);
          const [head = '', ...rest] = (await kept(guest)).split('\n');
          expect(head).toContain('From the disk of a guest that does not answer');
          expect(rest.join('\n')).toContain(' mark-one ');
        }
        const exit = host.host.exit(guest.spec.id, 30);
        hypervisor(guest, 'SIGKILL');
        expect(await exit).toMatchObject({ signal: 'SIGKILL' });
        const read = await kept(guest);
        const [first, ...lines] = read.split('\n');
        expect(first).toContain('From the disk of a guest that has ended');
        expectNoSecret(read);
        // What was read from the disk is what journalctl itself made of the same entries.
        const missed = asked.split('\n').filter((line) => line !== '' && !lines.includes(line));
        expect(missed).toEqual([]);

        if (kind === 'cli') {
          // Its disk is whole, and what it says next is of the next start.
          await host.start(guest);
          expect((await host.host.evidence(guest.spec.id)).map(({ name }) => name)).not.toContain(
            'journal.log',
          );
          expect(await guest.agent.journal()).toContain('mark-one');
          await host.host.stop(guest.spec.id);
          expect(await kept(guest)).toContain('mark-one');
        }
        await host.host.destroy(guest.spec.id);
        expect(await kept(guest)).toContain('mark-one');
      },
    );

    it('is named as missing where a guest never came to write one', async () => {
      const guest = host.guest('cli', LIMITS);
      await host.host.put(guest.spec);
      const exit = host.host.exit(guest.spec.id, 30);
      hypervisor(guest, 'SIGKILL');
      await exit;
      expect(await kept(guest)).toMatch(/^-- There is no journal: none is on the disk: .*--\n$/);
      await host.host.destroy(guest.spec.id);
    });
  },
);
