/** The process that testing/controller.ts starts: services without an API. Commands come as lines of JSON. */
import { createInterface } from 'node:readline';
import { pino } from 'pino';
import { z } from 'zod';
import { UserId } from '../../../protocol/ids.ts';
import { createHostClient } from '../../hosts/host-client.ts';
import { openDatabase } from '../../store/database.ts';
import { masterKeyFromValue } from '../../vault/master-key.ts';
import { createVault } from '../../vault/vault.ts';
import { createServices } from '../services.ts';

const Options = z.object({ databaseUrl: z.string(), hostSocket: z.string(), masterKey: z.string() });
const Command = z.object({ userId: UserId });

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const options = Options.parse(JSON.parse((await lines.next()).value ?? ''));
const log = pino({ level: 'debug' }, pino.destination({ fd: 2, sync: true }));
const { db } = await openDatabase({ url: options.databaseUrl });
const vault = await createVault(db, masterKeyFromValue(options.masterKey));
const services = await createServices({
  db,
  databaseUrl: options.databaseUrl,
  vault,
  hostClient: createHostClient(options.hostSocket),
  log,
  settings: { reconcileEveryMs: 200 },
});
process.once('SIGTERM', async () => {
  await services[Symbol.asyncDispose]();
  await db.destroy();
  process.exit(0);
});
process.stdout.write('ready\n');
for await (const line of { [Symbol.asyncIterator]: () => lines }) {
  const { userId } = Command.parse(JSON.parse(line));
  const session = await services.logins.start({
    userId,
    provider: 'codex',
    account: 'default',
    realm: 'test',
    expiresInSeconds: 600,
  });
  process.stdout.write(`session ${userId} ${session.id}\n`);
}
