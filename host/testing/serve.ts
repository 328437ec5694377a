/** A host service in a process of its own that a suite can kill: `node serve.ts <config JSON> [argv JSON]`. */
import { pino } from 'pino';
import { z } from 'zod';
import { HostConfig } from '../config.ts';
import { startHostService } from '../service.ts';

const config = HostConfig.parse(JSON.parse(process.argv[2] ?? ''));
const argv = z
  .array(z.string())
  .optional()
  .parse(JSON.parse(process.argv[3] ?? 'null') ?? undefined);
const service = await startHostService(config, pino({ level: 'silent' }), argv === undefined ? {} : { argv });
process.once('SIGTERM', () => void service.stop().then(() => process.exit(0)));
// Whoever reads this may send the signal at once.
process.stdout.write('ready\n');
