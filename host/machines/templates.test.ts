import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { PolydevError } from '../../protocol/errors.ts';
import { ImageId, newMachineId } from '../../protocol/ids.ts';
import type { MachineSpec } from '../../protocol/machine.ts';
import type { Machine, Template } from '../drivers/driver.ts';
import { newSpec } from '../testing/fixture.ts';
import { LOW_DISK_MIB } from './space.ts';
import { Templates } from './templates.ts';

const image = ImageId.parse('0123456789abcdef');
const soon = { timeout: 30_000, interval: 50 };

/** A driver in whose place the rows decide what succeeds. It says what it was asked for. */
class ScriptedDriver {
  readonly slowdown = 1;
  readonly asked: string[] = [];
  copyFails = false;
  makeFails = false;
  /** While set, making a template takes until it is aborted. */
  hangs = false;

  templateDiskMiB({ limits }: MachineSpec): number {
    return limits.memoryMiB;
  }

  machine(spec: MachineSpec, copied: boolean): Machine {
    return {
      ...{ id: spec.id, spec, image, address: null, copied, stamps: [] },
      ...{ exited: new Promise<never>(() => undefined), console: async () => '' },
      dial: () => Promise.reject(new Error('nobody')),
      stop: () => Promise.reject(new Error('nobody')),
      [Symbol.asyncDispose]: async () => undefined,
    };
  }

  async start(spec: MachineSpec): Promise<Machine> {
    this.asked.push('boot');
    return this.machine(spec, false);
  }

  async makeTemplate(like: MachineSpec, signal: AbortSignal): Promise<Template> {
    this.asked.push(`template ${like.image}`);
    if (this.hangs) {
      await new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      });
    }
    if (this.makeFails) throw new PolydevError('machine_start_failed', 'no page');
    return {
      start: async (spec) => {
        this.asked.push('copy');
        if (this.copyFails) throw new PolydevError('machine_unreachable', 'no answer');
        return this.machine(spec, true);
      },
      [Symbol.asyncDispose]: async () => void this.asked.push('template removed'),
    };
  }
}

const open: Templates[] = [];
afterEach(async () => {
  for (const templates of open.splice(0)) await templates[Symbol.asyncDispose]();
});
function make(
  driver: ScriptedDriver,
  options: { idleSeconds?: number | null; available?: { memory: number; disk: number } } = {},
) {
  const { idleSeconds = 0, available = { memory: 100_000, disk: 100_000 } } = options;
  const log = pino({ level: 'silent' });
  const templates = new Templates({ driver, idleSeconds, available: async () => available, log });
  open.push(templates);
  const start = (changes: Partial<MachineSpec> = {}) =>
    templates.start(newSpec({ id: newMachineId(), image, ...changes }), AbortSignal.timeout(30_000));
  return { templates, start };
}

describe('snapshot start', { timeout: 60_000 }, () => {
  it('boots the first of a kind, and starts the later ones as copies', async () => {
    const driver = new ScriptedDriver();
    const { templates, start } = make(driver);
    expect((await start()).copied).toBe(false);
    await vi.waitFor(() => expect(templates.count).toBe(1), soon);
    expect((await start()).copied).toBe(true);
    expect((await start({ realm: 'test' })).copied).toBe(false);
    expect((await start({ kind: 'cli' })).copied).toBe(false);
    expect((await start({ display: { width: 800, height: 600 } })).copied).toBe(false);
  });

  it('boots a machine whose copy fails, and does not use that template again', async () => {
    const driver = new ScriptedDriver();
    const { templates, start } = make(driver);
    await start();
    await vi.waitFor(() => expect(templates.count).toBe(1), soon);
    driver.copyFails = true;
    expect((await start()).copied).toBe(false);
    expect(driver.asked.slice(-3)).toEqual(['copy', 'template removed', 'boot']);
    expect(templates.count).toBe(0);
    // What made it useless may be over: another one is made, not without end.
    for (let made = 2; made <= 3; made++) {
      await vi.waitFor(() => expect(templates.count).toBe(1), soon);
      await start();
    }
    await start();
    expect(driver.asked.filter((what) => what === `template ${image}`)).toHaveLength(3);
  });

  it('tries a template once that cannot be made', async () => {
    const driver = new ScriptedDriver();
    driver.makeFails = true;
    const { templates, start } = make(driver);
    await start();
    await vi.waitFor(() => expect(driver.asked).toHaveLength(2), soon);
    expect((await start()).copied).toBe(false);
    await templates[Symbol.asyncDispose]();
    expect(driver.asked).toEqual(['boot', `template ${image}`, 'boot']);
  });

  it('removes the template of another image', async () => {
    const driver = new ScriptedDriver();
    const { templates, start } = make(driver);
    await start();
    await vi.waitFor(() => expect(templates.count).toBe(1), soon);
    await start({ image: ImageId.parse('fedcba9876543210') });
    expect(driver.asked).toEqual(['boot', `template ${image}`, 'template removed', 'boot']);
  });

  it.each(['memory', 'disk'] as const)('waits with a template until there is %s for it', async (what) => {
    const driver = new ScriptedDriver();
    const { memoryMiB } = newSpec({ id: newMachineId(), image }).limits;
    const enough = { memory: 2 * memoryMiB, disk: memoryMiB + LOW_DISK_MIB };
    const available = { ...enough, [what]: enough[what] - 1 };
    const { templates, start } = make(driver, { available });
    await start();
    await delay(2_500);
    expect(driver.asked).toEqual(['boot']);
    Object.assign(available, enough);
    await vi.waitFor(() => expect(templates.count).toBe(1), soon);
  });

  it('makes none when it is off', async () => {
    const driver = new ScriptedDriver();
    const { start } = make(driver, { idleSeconds: null });
    await start();
    await start();
    expect(driver.asked).toEqual(['boot', 'boot']);
  });

  it('ends what it makes when the host service stops, and removes what it has', async () => {
    const driver = new ScriptedDriver();
    const { templates, start } = make(driver);
    await start();
    await vi.waitFor(() => expect(templates.count).toBe(1), soon);
    driver.hangs = true;
    await start({ realm: 'test' });
    await vi.waitFor(
      () => expect(driver.asked.filter((what) => what.startsWith('template'))).toHaveLength(2),
      soon,
    );
    await templates[Symbol.asyncDispose]();
    expect(templates.count).toBe(0);
    expect(driver.asked.at(-1)).toBe('template removed');
  });
});
