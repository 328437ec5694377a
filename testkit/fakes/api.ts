/** The real API on fakes of what is behind it, with its log captured. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import { buildApi } from '../../controller/api/app.ts';
import type { Api, ApiOptions } from '../../controller/api/context.ts';
import { createLogger } from '../../controller/api/logging.ts';
import { providers } from '../../providers/index.ts';
import { FakeAccess, FakeAuditLog } from './access.ts';
import { FakeServices } from './services.ts';

export interface TestApi extends AsyncDisposable {
  readonly app: Api;
  readonly services: FakeServices;
  readonly access: FakeAccess;
  readonly audit: FakeAuditLog;
  /** The folder of the dashboard's files; empty at first. */
  readonly webDist: string;
  /** An operator's key and two people's. */
  readonly keys: { readonly operator: string; readonly ann: string; readonly bob: string };
  /** Every route as `METHOD /path/:id`. */
  readonly routes: readonly string[];
  /** Everything logged so far, as text. */
  log(): string;
  /** Listens on a free port of the loopback and gives `http://127.0.0.1:port`. */
  listen(): Promise<string>;
}

export const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

export async function createTestApi(options: Partial<ApiOptions> = {}): Promise<TestApi> {
  const services = new FakeServices();
  const access = new FakeAccess();
  const audit = new FakeAuditLog();
  const webDist = await mkdtemp(path.join(tmpdir(), 'polydev-web-'));
  let logged = '';
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      logged += chunk.toString();
      done();
    },
  });
  const routes: string[] = [];
  const app = await buildApi({
    services,
    access,
    audit,
    providers: Object.values(providers),
    ticketKey: randomBytes(32),
    readiness: [],
    webDist,
    allowTestRealm: true,
    logger: createLogger({ level: 'trace', destination }),
    onRoute: (method, url) => routes.push(`${method} ${url}`),
    ...options,
  });
  return {
    app,
    services,
    access,
    audit,
    webDist,
    keys: {
      operator: access.addKey('operator', 'operator'),
      ann: access.addKey('ann', 'user'),
      bob: access.addKey('bob', 'user'),
    },
    routes,
    log: () => logged,
    listen: () => app.listen({ host: '127.0.0.1', port: 0 }),
    async [Symbol.asyncDispose]() {
      await app.close();
      await rm(webDist, { recursive: true, force: true });
    },
  };
}
