/**
 * The test identity provider: stands in for the providers' own sites, over TLS, for tests without internet.
 *
 * `node testkit/idp/main.ts --listen <ip> --state <dir> [--port 443] [--canary <text>] [--control <socket>]`
 *
 * Prints one JSON line `{ready, ca, hosts, ...}` on stdout when it accepts connections, then one JSON line per request on
 * stderr. Needs `openssl`, and CAP_NET_BIND_SERVICE for port 443; nothing else of root. Ends on SIGTERM or SIGINT.
 */
import { parseArgs } from 'node:util';
import { PolydevError } from '../../protocol/errors.ts';
import { startControl } from './control.ts';
import { type LogLine, startIdp } from './server.ts';

const { values } = parseArgs({
  options: {
    listen: { type: 'string' },
    port: { type: 'string', default: '443' },
    state: { type: 'string' },
    canary: { type: 'string', default: 'polydev-test-canary' },
    control: { type: 'string' },
  },
});

const port = Number(values.port);
if (!values.listen || !values.state || !Number.isInteger(port) || port < 0 || port > 65_535) {
  process.stderr.write(
    'usage: main.ts --listen <ip> --state <dir> [--port 443] [--canary <text>] [--control <socket>]\n',
  );
  process.exit(2);
}

const stopping = new AbortController();
for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stopping.abort());

const recent: LogLine[] = [];
const log = (line: LogLine) => {
  recent.push(line);
  if (recent.length > 1_000) recent.shift();
  process.stderr.write(`${JSON.stringify(line)}\n`);
};

try {
  await using stack = new AsyncDisposableStack();
  const { listen, state, canary, control } = values;
  const idp = stack.use(await startIdp({ listen, port, state, canary, log, signal: stopping.signal }));
  const ready = { ready: true, ca: idp.caPath, hosts: idp.hosts, listen, port: idp.port };
  if (control) stack.use(await startControl(control, { ready, recent }));
  process.stdout.write(`${JSON.stringify(ready)}\n`);
  await new Promise<void>((resolve) => {
    if (stopping.signal.aborted) resolve();
    else stopping.signal.addEventListener('abort', () => resolve(), { once: true });
  });
} catch (error) {
  const report = PolydevError.from(error, 'test_provider_failed').toReport();
  process.stderr.write(`${JSON.stringify({ ready: false, error: report })}\n`);
  process.exitCode = 1;
}
