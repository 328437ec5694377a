/**
 * The whole login in one sealed place: run by a test inside fresh network, mount and pid namespaces, where nothing but
 * loopback exists. Starts the test identity provider, Xvnc, openbox and Chromium, runs the genuine Codex CLI's login with
 * a person at the screen, and prints what came of it as one JSON line. When this process ends, so does everything.
 *
 * `unshare --net --mount --pid --fork --kill-child --mount-proc node sealed.ts <JSON of SealedRun>`
 */
import { readFile, stat, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RfbClient } from './rfb.ts';
import { PERSON_ID, prepareRoom, ROOM, startDesktop, startProvider, within } from './room.ts';
import { type SignInStep, signIn } from './sign-in.ts';

/** What to do; `shots` is a directory for screenshots taken before consent. */
export interface SealedRun {
  codex: string;
  email: string;
  password: string;
  consent: 'allow' | 'deny';
  canary: string;
  shots?: string;
}

/** What came of it. Output of the CLI is cut to its ends; it holds no token. */
export interface SealedResult {
  steps: SignInStep[];
  problem?: string;
  login: { code: number | null; output: string };
  authFile?: { mode: string; email: string; refreshToken: boolean; canary: boolean };
  status?: string;
  answer?: string;
  logout?: string;
  /** `METHOD host/path status note` of every request that was answered with something else than 404. */
  requests: string[];
}

const run: SealedRun = JSON.parse(process.argv[2] ?? '');
const home = `${ROOM}/home`;
const urlFile = `${ROOM}/url`;

await using stack = new AsyncDisposableStack();
await prepareRoom(home);
const provider = stack.use(await startProvider(run.canary));
const display = stack.use(await startDesktop(home));
const env = { ...display.env, BROWSER: `${ROOM}/browser`, URL_FILE: urlFile };

// What `$BROWSER` names: hands the URL over, as the guest's own opener does.
const shim = '#!/bin/sh\nprintf %s "$1" > "$URL_FILE.new" && mv "$URL_FILE.new" "$URL_FILE"\n';
await writeFile(`${ROOM}/browser`, shim, { mode: 0o755 });

const codex = (args: string[], deadlineMs: number) =>
  within(run.codex, args, { env, cwd: home, ...PERSON_ID, deadlineMs });

const login = codex(['login'], 90_000);
const result: SealedResult = { steps: [], login: { code: null, output: '' }, requests: [] };
try {
  await display.browse(await loginUrl());
  using rfb = await RfbClient.connect(connect(display.socket));
  await signIn({
    rfb,
    provider: 'codex',
    email: run.email,
    password: run.password,
    consent: run.consent,
    onStep: (step, _ms, person) => {
      result.steps.push(step);
      const shown = !['allowed', 'denied', 'left the provider'].includes(step);
      if (run.shots && shown) void writeFile(`${run.shots}/${step}.png`, person.screenshot());
    },
  });
} catch (error) {
  result.problem = error instanceof Error ? error.message : String(error);
  login.stop();
}
const ended = await Promise.race([
  login.ended,
  sleep(10_000)
    .then(() => login.stop())
    .then(() => login.ended),
]);
result.login = ended;
if (ended.code === 0) {
  const text = await readFile(`${home}/.codex/auth.json`, 'utf8');
  const { tokens } = JSON.parse(text);
  const claims = JSON.parse(Buffer.from(tokens.id_token.split('.')[1], 'base64url').toString('utf8'));
  result.authFile = {
    mode: ((await stat(`${home}/.codex/auth.json`)).mode & 0o777).toString(8),
    email: claims.email,
    refreshToken: typeof tokens.refresh_token === 'string' && tokens.refresh_token !== '',
    canary: text.includes(run.canary),
  };
  result.status = (await codex(['login', 'status'], 20_000).ended).output.trim();
  const said = await codex(['exec', '--json', '--skip-git-repo-check', 'ping from the test'], 60_000).ended;
  result.answer = said.output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .find((event) => event.item?.type === 'agent_message')?.item.text;
  result.answer ??= said.output.slice(-2_000);
  result.logout = (await codex(['logout'], 20_000).ended).output.trim();
}
result.requests = provider.requests();
process.stdout.write(`${JSON.stringify(result)}\n`);
await stack.disposeAsync();
process.exit(0);

async function loginUrl(): Promise<string> {
  const signal = AbortSignal.timeout(20_000);
  for (;;) {
    const url = await readFile(urlFile, 'utf8').catch(() => undefined);
    if (url) return url;
    if (login.over) {
      throw new Error(`codex ended before it opened a browser: ${(await login.ended).output.slice(-500)}`);
    }
    await sleep(50, undefined, { signal });
  }
}
