/** The genuine host service in a process of its own, and machines in it with the genuine agent, as a contract's rows use them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type AgentClient, createAgentClient } from '../../controller/hosts/agent-client.ts';
import { createHostClient, type HostClient } from '../../controller/hosts/host-client.ts';
import type { HostConfig } from '../../host/config.ts';
import { CHECKOUT, newInstance } from '../../host/testing/fixture.ts';
import { newMachineId } from '../../protocol/ids.ts';
import type { MachineSpec } from '../../protocol/machine.ts';

export interface Guest {
  readonly spec: MachineSpec;
  readonly agent: AgentClient;
  /** How many times longer than usual its commands may take. */
  readonly patience: number;
}

/** How much of what a host service printed goes into the error when it ends too early. */
const SAID_CHARS = 8000;

export class HostProcess {
  readonly #config: HostConfig;
  readonly #checkout: string;
  readonly #bootMs: number;
  readonly #patience: number;
  readonly host: HostClient;
  #child: ChildProcess | undefined;

  /**
   * @param bootMs how long a machine may take until its agent is ready
   * @param patience how many times longer than usual the host service and agents may take to answer
   */
  constructor(config: HostConfig, checkout: string, bootMs: number, patience = 1) {
    this.#config = config;
    this.#checkout = checkout;
    this.#bootMs = bootMs;
    this.#patience = patience;
    this.host = createHostClient(config.socketPath, undefined, patience);
  }

  /** One of an instance of its own, whose folders go with it. */
  static alone(
    driver: HostConfig['driver'],
    bootMs: number,
    patience?: number,
  ): Disposable & { host: HostProcess; config: HostConfig } {
    const made = newInstance();
    const config = { ...made.config, driver };
    const host = new HostProcess(config, CHECKOUT, bootMs, patience);
    return { host, config, [Symbol.dispose]: () => made[Symbol.dispose]() };
  }

  async serve(changes: Partial<HostConfig> = {}): Promise<void> {
    const script = join(this.#checkout, 'host/testing/serve.ts');
    const argv = [script, JSON.stringify({ ...this.#config, ...changes })];
    const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said = `${said}${text}`.slice(-SAID_CHARS);
      process.stderr.write(text);
    });
    const ended = once(child, 'close').then(([code, signal]) => {
      throw new Error(`the host service ended with ${code ?? signal} before it served; it said:\n${said}`);
    });
    const ready = once(child.stdout, 'data', { signal: AbortSignal.timeout(60_000 * this.#patience) });
    await Promise.race([ready, ended]);
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }

  /** A machine that is not started yet. */
  guest(
    kind: MachineSpec['kind'],
    limits: MachineSpec['limits'],
    realm: MachineSpec['realm'] = 'test',
  ): Guest {
    const token = randomBytes(16).toString('hex');
    const spec: MachineSpec = {
      id: newMachineId(),
      kind,
      realm,
      limits,
      display: { width: 1280, height: 800 },
      agentTokenHash: createHash('sha256').update(token).digest('hex'),
    };
    const patience = this.#patience;
    return { spec, agent: createAgentClient(this.host, spec.id, token, patience), patience };
  }

  /** Starts it and waits until its agent is ready. Throws with the console when that does not come. */
  async start(guest: Guest): Promise<void> {
    await this.host.put(guest.spec);
    await this.ready(guest);
  }

  /** Waits until the agent of one that was started is ready. Throws as `start` does. */
  async ready({ spec, agent }: Guest): Promise<void> {
    const signal = AbortSignal.timeout(this.#bootMs);
    for (;;) {
      const health = await agent.health(signal).catch(() => undefined);
      if (health?.ready === true) return;
      const state = (await this.host.get(spec.id))?.state;
      if (health?.failure != null || signal.aborted || state !== 'running') {
        const why = health?.failure?.message ?? `not ready, ${state}`;
        throw new Error(`${why}; console:\n${await this.host.console(spec.id)}`);
      }
      // Asking takes the computer's time, too: an emulated one would do little else.
      await sleep(100 * this.#patience);
    }
  }
}

export interface Said {
  readonly text: string;
  readonly code: number | null;
  readonly signal: string | null;
}

/** Runs a command as the person; everything it printed, and how it ended. `usualMs`: what it may take on a computer of usual speed. */
export async function run(
  { agent, patience = 1 }: Pick<Guest, 'agent'> & Partial<Guest>,
  argv: readonly string[],
  usualMs = 60_000,
): Promise<Said> {
  let text = '';
  const timeoutMs = usualMs * patience;
  const limit = AbortSignal.timeout(timeoutMs + 30_000);
  for await (const event of agent.exec({ argv: [...argv], timeoutMs }, limit)) {
    if (event.type === 'exit') return { text, code: event.code, signal: event.signal };
    text += event.text;
  }
  throw new Error('the command has no end');
}
