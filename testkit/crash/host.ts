/** The host service with a guest of the harness: `node host.ts <config.json> <argv JSON>`. Speaks as host/main.ts does. */
import { pino } from 'pino';
import { z } from 'zod';
import { readConfig } from '../../host/config.ts';
import { startHostService } from '../../host/service.ts';

const [, , config = '', argv = ''] = process.argv;
const service = await startHostService(
  await readConfig(config),
  pino({ name: 'host', level: 'info' }, pino.destination(2)),
  { argv: z.array(z.string()).parse(JSON.parse(argv)) },
);
process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
process.once('SIGTERM', () => void service.stop().then(() => process.exit(0)));
