/** Tries connections and names from the network namespace it was started in: `node prober.ts <JSON>`; prints JSON. */
import { Resolver } from 'node:dns/promises';
import { connect } from 'node:net';
import { z } from 'zod';

const Try = z.object({
  to: z.string(),
  port: z.number(),
  from: z.string().optional(),
  name: z.string().optional(),
});
const PATIENCE_MS = 1200;

/** `ok`, an address, or how it failed. */
async function attempt({ to, port, from, name }: z.infer<typeof Try>): Promise<string> {
  if (name !== undefined) {
    const resolver = new Resolver({ timeout: PATIENCE_MS, tries: 1 });
    resolver.setServers([`${to}:${port}`]);
    return resolver.resolve4(name).then(
      (found) => found.join(),
      (error: NodeJS.ErrnoException) => error.code ?? error.message,
    );
  }
  return new Promise((resolve) => {
    const socket = connect({ host: to, port, ...(from === undefined ? {} : { localAddress: from }) });
    const done = (result: string): void => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(PATIENCE_MS, () => done('silence'));
    socket.once('connect', () => done('ok'));
    socket.once('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
  });
}

const tries = z.record(z.string(), Try).parse(JSON.parse(process.argv[2] ?? ''));
const results = await Promise.all(
  Object.entries(tries).map(async ([label, one]) => [label, await attempt(one)] as const),
);
process.stdout.write(JSON.stringify(Object.fromEntries(results)));
