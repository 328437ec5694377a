/**
 * The whole login in one sealed place: run by a test inside fresh network, mount and pid namespaces, where nothing but
 * loopback exists. Starts the test identity provider, Xvnc, openbox and Chromium, runs the genuine Codex CLI's login with
 * a person at the screen, and prints what came of it as one JSON line. When this process ends, so does everything.
 *
 * `unshare --net --mount --pid --fork --kill-child --mount-proc node sealed.ts <JSON of SealedRun>`
 */
import { writeFileSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Person } from './person.ts';
import { RfbClient } from './rfb.ts';
import {
  PERSON_ID,
  prepareRoom,
  ROOM,
  startCommand,
  startDesktop,
  startProvider,
  unpackCodex,
} from './room.ts';
import { type SignInStep, signIn } from './sign-in.ts';

/** What to do. */
export const SealedRun = z.object({
  /** The native codex program, or a read-only image (`.erofs`) of the golden image's CLI layer that holds it. */
  codex: z.string(),
  email: z.string(),
  password: z.string(),
  consent: z.enum(['allow', 'deny']),
  canary: z.string(),
  /** Directory for screenshots, which are taken before consent only. */
  shots: z.string().optional(),
  /** After the login: send a prompt, then log out. */
  use: z.boolean().default(false),
});

/** What came of it. */
export const SealedResult = z.object({
  steps: z.array(z.string()),
  /** Why the person did not get through, if so. */
  problem: z.string().optional(),
  /** How `codex login` ended; `code` is null when it still waited 8 s after the person was done, and was stopped. */
  login: z.object({ code: z.number().nullable(), output: z.string() }),
  /** Facts about auth.json, none of them a token. */
  authFile: z
    .object({ mode: z.string(), email: z.string(), refreshToken: z.boolean(), canary: z.boolean() })
    .optional(),
  status: z.string().optional(),
  answer: z.string().optional(),
  logout: z.string().optional(),
  /** `METHOD host/path status note` of every request to the test identity provider that was not answered with 404. */
  requests: z.array(z.string()),
});
export type SealedResult = z.infer<typeof SealedResult>;

const AuthFile = z.object({
  tokens: z.object({ id_token: z.string(), refresh_token: z.string().nullish() }),
});
const Event = z.object({ item: z.object({ type: z.string(), text: z.string().optional() }).optional() });

const LOGIN_MS = 120_000;
const AFTERWARDS_MS = 8_000;
const BEFORE_CONSENT: readonly SignInStep[] = [
  'sign-in page seen',
  'e-mail typed',
  'password typed',
  'signed in',
  'consent page seen',
];

if (import.meta.main) {
  const run = SealedRun.parse(JSON.parse(process.argv[2] ?? 'null'));
  process.stdout.write(`${JSON.stringify(await sealed(run))}\n`);
}

async function sealed(run: z.infer<typeof SealedRun>): Promise<SealedResult> {
  const home = `${ROOM}/home`;
  await using stack = new AsyncDisposableStack();
  await prepareRoom(home);
  const program = run.codex.endsWith('.erofs') ? await unpackCodex(run.codex) : run.codex;
  const provider = stack.use(await startProvider(run.canary));
  const display = stack.use(await startDesktop(home));

  // What `$BROWSER` names: hands the URL over, as the guest's own opener does.
  const shim = '#!/bin/sh\nprintf %s "$1" > "$URL_FILE.new" && mv "$URL_FILE.new" "$URL_FILE"\n';
  await writeFile(`${ROOM}/browser`, shim, { mode: 0o755 });
  const env = { ...display.env, BROWSER: `${ROOM}/browser`, URL_FILE: `${ROOM}/url` };
  const codex = (deadlineMs: number, ...args: string[]) =>
    startCommand(program, args, { env, cwd: home, ...PERSON_ID, deadlineMs });

  const login = stack.use(codex(LOGIN_MS, 'login'));
  const result: SealedResult = { steps: [], login: { code: null, output: '' }, requests: [] };
  try {
    const ended = login.ended.then(({ output }) => {
      throw new Error(`codex ended before it opened a browser: ${output.slice(-500)}`);
    });
    ended.catch(() => undefined);
    await display.browse(await Promise.race([textOf(env.URL_FILE), ended]));
    using rfb = await RfbClient.connect(connect(display.socket));
    const onStep = (step: SignInStep, _ms: number, person: Person) => {
      result.steps.push(step);
      if (run.shots && BEFORE_CONSENT.includes(step)) {
        writeFileSync(`${run.shots}/${step}.png`, person.screenshot());
      }
    };
    const { email, password, consent } = run;
    await signIn({ rfb, provider: 'codex', email, password, consent, onStep });
  } catch (error) {
    result.problem = error instanceof Error ? error.message : String(error);
  }
  const patience = setTimeout(() => void login[Symbol.asyncDispose](), AFTERWARDS_MS);
  result.login = await login.ended;
  clearTimeout(patience);
  if (result.login.code === 0) {
    result.authFile = await lookAt(`${home}/.codex/auth.json`, run.canary);
    result.status = (await codex(20_000, 'login', 'status').ended).output.trim();
    if (run.use) {
      const prompt = ['exec', '--json', '--skip-git-repo-check', 'ping from the test'];
      result.answer = answerIn((await codex(60_000, ...prompt).ended).output);
      result.logout = (await codex(20_000, 'logout').ended).output.trim();
    }
  }
  result.requests = await provider.requests();
  return result;
}

async function textOf(path: string): Promise<string> {
  const signal = AbortSignal.timeout(20_000);
  for (;;) {
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text) return text;
    await sleep(50, undefined, { signal });
  }
}

async function lookAt(path: string, canary: string): Promise<NonNullable<SealedResult['authFile']>> {
  const text = await readFile(path, 'utf8');
  const { tokens } = AuthFile.parse(JSON.parse(text));
  const payload = Buffer.from(tokens.id_token.split('.')[1] ?? '', 'base64url').toString('utf8');
  return {
    mode: ((await stat(path)).mode & 0o777).toString(8),
    email: z.object({ email: z.string() }).parse(JSON.parse(payload)).email,
    refreshToken: Boolean(tokens.refresh_token),
    canary: text.includes(canary),
  };
}

/** The agent's message among the JSON lines of `codex exec`, or the end of the output when there is none. */
function answerIn(output: string): string {
  const events = output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => Event.parse(JSON.parse(line)));
  return events.find(({ item }) => item?.type === 'agent_message')?.item?.text ?? output.slice(-1_000);
}
