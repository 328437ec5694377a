/**
 * host/: the only privileged process. Runs machines and their network, and holds no person's credential.
 *
 * `node host/main.ts <config.json>` (see config.ts). Logs are JSON lines on standard error; it serves once the one line
 * {"ready":true,"driver":{name,why}} is on standard output. SIGTERM or SIGINT: full stop. Killed, it leaves its machines running, and the next one
 * with the same settings goes on with them.
 */
import { pino } from 'pino';
import { PolydevError } from '../protocol/errors.ts';
import { readConfig } from './config.ts';
import { startHostService } from './service.ts';

const path = process.argv[2];
try {
  if (path === undefined)
    throw new PolydevError('configuration_invalid', 'usage: node host/main.ts <config.json>');
  const config = await readConfig(path);
  const log = pino({ name: 'host', level: config.logLevel }, pino.destination(2));
  const service = await startHostService(config, log);
  let stopping = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (stopping) return;
      stopping = true;
      log.info({ signal }, 'stopping');
      service.stop().then(
        () => {
          log.info('stopped');
          process.exit(0);
        },
        (err: unknown) => {
          log.error({ err }, 'could not stop everything');
          process.exit(1);
        },
      );
    });
  }
  // Whoever reads this may end us at once: the handlers above are there.
  process.stdout.write(`${JSON.stringify({ ready: true, driver: service.driver })}\n`);
} catch (thrown) {
  const error = PolydevError.from(thrown);
  process.stderr.write(
    `${JSON.stringify({ level: 60, msg: 'host service did not start', error: error.toReport() })}\n`,
  );
  process.exitCode = 1;
}
