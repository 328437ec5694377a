/**
 * Looks at the network as a machine has it: run inside the machine's network namespace as
 * `node check.ts <resolver> <address of the provider or ->`; prints one JSON line (`Seen`) and ends within 2 s.
 */
import { Resolver } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { z } from 'zod';

const CHECK_MS = 1500;

export const Seen = z.object({
  resolver: z.object({ answers: z.boolean(), said: z.string() }),
  provider: z.object({ reachable: z.boolean(), said: z.string() }).nullable(),
  listening: z.array(z.number().int()),
});
export type Seen = z.infer<typeof Seen>;

/** Any answer counts, also one that there is no such name. */
async function askResolver(address: string): Promise<Seen['resolver']> {
  const resolver = new Resolver({ timeout: CHECK_MS / 2, tries: 2 });
  resolver.setServers([address]);
  try {
    await resolver.resolve4('check.polydev.invalid');
    return { answers: true, said: 'an address' };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown';
    return { answers: ['ENOTFOUND', 'ENODATA', 'EREFUSED', 'ESERVFAIL'].includes(code), said: code };
  }
}

function tryProvider(address: string): Promise<{ reachable: boolean; said: string }> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port: 443 });
    const say = (reachable: boolean, said: string): void => {
      socket.destroy();
      resolve({ reachable, said });
    };
    socket.setTimeout(CHECK_MS, () => say(false, `no answer within ${CHECK_MS} ms`));
    socket.once('connect', () => say(true, 'connected'));
    socket.once('error', (error: NodeJS.ErrnoException) => say(false, error.code ?? error.message));
  });
}

/** Ports in the state LISTEN (0A), from the kernel's table of this namespace. */
function listeningPorts(): number[] {
  const ports = ['tcp', 'tcp6'].flatMap((table) =>
    readFileSync(`/proc/self/net/${table}`, 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields[3] === '0A')
      .map((fields) => Number.parseInt(fields[1]?.split(':')[1] ?? '', 16)),
  );
  return [...new Set(ports)].sort((a, b) => a - b);
}

if (import.meta.main) {
  const [resolver = '', provider = '-'] = process.argv.slice(2);
  const [answer, reached] = await Promise.all([
    askResolver(resolver),
    provider === '-' ? null : tryProvider(provider),
  ]);
  const seen: Seen = { resolver: answer, provider: reached, listening: listeningPorts() };
  process.stdout.write(`${JSON.stringify(seen)}\n`);
}
