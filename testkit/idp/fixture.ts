/** For tests of the identity provider: one on a free loopback port, and the requests that a browser and a CLI make. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { TEST_PERSON } from './people.ts';
import { type LogLine, startIdp } from './server.ts';

/** The client id and callback that the genuine CLI uses. */
export const CLIENT = {
  id: 'app_EMoamEEZ73f0CkXaXp7hrann',
  redirect: 'http://127.0.0.1:1455/auth/callback',
} as const;

/** Canary of every token in these tests. */
export const CANARY = 'canary-of-the-idp-tests';

/** An answer; `json` is its body parsed, `undefined` when it is no JSON. */
export interface Answer {
  status: number;
  location: string | undefined;
  text: string;
  json: Record<string, unknown> | undefined;
}

/** One request to `host`; a `form` or `json` makes it a POST. */
export interface Call {
  host?: string;
  path: string;
  form?: Record<string, string>;
  json?: unknown;
  headers?: Record<string, string>;
}

/** A running identity provider with its log and a client that trusts its authority and nothing else. */
export class Fixture implements AsyncDisposable {
  readonly log: LogLine[] = [];
  readonly state: string;
  readonly #own: boolean;
  #stop: (() => Promise<void>) | undefined;
  #port = 0;
  #ca = '';

  private constructor(state: string, own: boolean) {
    this.state = state;
    this.#own = own;
  }

  /** Starts one; with `state` it goes on where another left that directory. */
  static async start(state?: string): Promise<Fixture> {
    const fixture = new Fixture(state ?? (await mkdtemp(join(tmpdir(), 'idp-'))), state === undefined);
    const options = { listen: '127.0.0.1', port: 0, state: fixture.state, canary: CANARY };
    const log = (line: LogLine) => fixture.log.push(line);
    const idp = await startIdp({ ...options, log, signal: AbortSignal.timeout(60_000) });
    fixture.#stop = async () => idp[Symbol.asyncDispose]();
    fixture.#port = idp.port;
    fixture.#ca = await readFile(idp.caPath, 'utf8');
    return fixture;
  }

  async stop(): Promise<void> {
    await this.#stop?.();
    this.#stop = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    if (this.#own) await rm(this.state, { recursive: true, force: true });
  }

  /** Sends one request over TLS, checking the certificate for the host. */
  call({ host = 'auth.openai.com', path, form, json, headers = {} }: Call): Promise<Answer> {
    const body = form
      ? new URLSearchParams(form).toString()
      : json === undefined
        ? undefined
        : JSON.stringify(json);
    const type = form ? 'application/x-www-form-urlencoded' : 'application/json';
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          ...{ host: '127.0.0.1', port: this.#port, servername: host, ca: this.#ca, agent: false, path },
          method: body === undefined ? 'GET' : 'POST',
          headers: { host, ...(body === undefined ? {} : { 'content-type': type }), ...headers },
          signal: AbortSignal.timeout(20_000),
        },
        (incoming) => {
          const chunks: Buffer[] = [];
          incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
          incoming.on('error', reject);
          incoming.on('end', () => {
            const text = Buffer.concat(chunks).toString('utf8');
            const { location } = incoming.headers;
            resolve({ status: incoming.statusCode ?? 0, location, text, json: asObject(text) });
          });
        },
      );
      outgoing.on('upgrade', (incoming, socket) => {
        socket.destroy();
        resolve({ status: incoming.statusCode ?? 0, location: undefined, text: '', json: undefined });
      });
      outgoing.on('error', reject);
      outgoing.end(body);
    });
  }

  /** Opens the sign-in page as the CLI's URL does. `change` replaces or (with '') removes parameters. */
  async authorize(
    change: Record<string, string> = {},
  ): Promise<Answer & { verifier: string; state: string; visit: string }> {
    const verifier = randomBytes(32).toString('base64url');
    const state = randomBytes(16).toString('base64url');
    const parameters = new URLSearchParams({
      response_type: 'code',
      client_id: CLIENT.id,
      redirect_uri: CLIENT.redirect,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      state,
      scope: 'openid profile email offline_access',
      ...change,
    });
    const answer = await this.call({ path: `/oauth/authorize?${parameters}` });
    return { ...answer, verifier, state, visit: visitIn(answer.text) };
  }

  /** Sends the sign-in form. */
  signIn(
    visit: string,
    email: string = TEST_PERSON.email,
    password: string = TEST_PERSON.password,
  ): Promise<Answer> {
    return this.call({ path: '/oauth/sign-in', form: { visit, email, password } });
  }

  /** Sends the consent form. */
  decide(visit: string, decision: string): Promise<Answer> {
    return this.call({ path: '/oauth/consent', form: { visit, decision } });
  }

  /** Everything up to the code in the CLI's callback. */
  async code(email?: string): Promise<{ code: string; verifier: string }> {
    const { visit, verifier } = await this.authorize();
    await this.signIn(visit, email);
    const { location = '' } = await this.decide(visit, 'allow');
    return { code: new URL(location).searchParams.get('code') ?? '', verifier };
  }

  /** Exchanges a code as the CLI does; `change` replaces fields. */
  exchange(code: string, verifier: string, change: Record<string, string> = {}): Promise<Answer> {
    const form = { grant_type: 'authorization_code', client_id: CLIENT.id, redirect_uri: CLIENT.redirect };
    return this.call({ path: '/oauth/token', form: { ...form, code, code_verifier: verifier, ...change } });
  }

  /** Signs somebody in and returns their tokens. */
  async tokens(email?: string): Promise<Tokens> {
    const { code, verifier } = await this.code(email);
    return Tokens.parse((await this.exchange(code, verifier)).json);
  }

  /** Refreshes as the CLI does. */
  refresh(token: string): Promise<Answer> {
    const json = { client_id: CLIENT.id, grant_type: 'refresh_token', refresh_token: token };
    return this.call({ path: '/oauth/token', json: { ...json, refresh_reason: 'proactive_expiry' } });
  }
}

/** What a login gives. */
export const Tokens = z.object({ id_token: z.string(), access_token: z.string(), refresh_token: z.string() });
export type Tokens = z.infer<typeof Tokens>;

/** The hidden visit id of a page; '' when it has none. */
export function visitIn(page: string): string {
  return /name="visit" value="([^"]+)"/.exec(page)?.[1] ?? '';
}

function asObject(text: string): Record<string, unknown> | undefined {
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
