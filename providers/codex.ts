/** OpenAI Codex. Facts from running the unmodified @openai/codex 0.169.0 without a route to the internet. */
import type { CredentialFacts, CredentialFile } from '../protocol/agent.ts';
import type { CredentialCheck, Provider } from './provider.ts';

const AUTH_FILE = '.codex/auth.json';
const LOGIN_PAGE = /https:\/\/auth\.openai\.com\/oauth\/authorize\?[^\s"'<>\\\u001b]+/g;

type Fields = Readonly<Record<string, unknown>>;

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value.trim() !== '' ? value : undefined;
}

function parseFields(json: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(json);
    return isFields(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The claims of a JWT, its signature unchecked (the CLI does not check it either); empty when it is none. */
function claims(token: string): Fields {
  const parts = token.split('.');
  const payload = parts[1];
  if (parts.length !== 3 || payload === undefined) return {};
  return parseFields(Buffer.from(payload, 'base64url').toString('utf8')) ?? {};
}

function expiry(token: string): string | null {
  const { exp } = claims(token);
  if (typeof exp !== 'number' || !Number.isFinite(exp)) return null;
  const at = new Date(exp * 1000);
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
}

function check(files: readonly CredentialFile[]): CredentialCheck {
  const incomplete = (problem: string): CredentialCheck => ({ state: 'incomplete', problem });
  const file = files.find((candidate) => candidate.path === AUTH_FILE);
  if (file === undefined) return incomplete('auth.json is missing');
  const auth = parseFields(Buffer.from(file.contentBase64, 'base64').toString('utf8'));
  if (auth === undefined) return incomplete('auth.json is not a JSON object');
  if (!isFields(auth.tokens)) return incomplete('auth.json holds no tokens');
  const { tokens } = auth;
  const missing = ['id_token', 'access_token', 'refresh_token'].filter((name) => !text(tokens[name]));
  if (missing.length > 0) return incomplete(`auth.json lacks ${missing.join(', ')}`);

  const idClaims = claims(String(tokens.id_token));
  const openai = idClaims['https://api.openai.com/auth'];
  const account = isFields(openai) ? openai : {};
  const accountId = text(tokens.account_id) ?? text(account.chatgpt_account_id);
  if (accountId === undefined) return incomplete('the tokens name no account');
  const facts: CredentialFacts = {
    accountId,
    email: text(idClaims.email) ?? null,
    subscription: text(account.chatgpt_plan_type) ?? null,
    accessExpiresAt: expiry(String(tokens.access_token)),
  };
  return { state: 'complete', facts };
}

export const codex: Provider = {
  id: 'codex',
  title: 'OpenAI Codex',
  npmPackage: '@openai/codex',
  login: {
    command: { argv: ['codex', 'login'], env: {} },
    urlFrom: 'browser-argv',
    findUrl(output) {
      // The last one counts: an earlier one may be cut off where a chunk of output ended.
      const found = output.match(LOGIN_PAGE)?.at(-1);
      if (found === undefined || !URL.canParse(found)) return undefined;
      const url = new URL(found);
      const whole = ['redirect_uri', 'state', 'code_challenge'].every((name) => url.searchParams.has(name));
      return whole ? url : undefined;
    },
    stdin: 'closed',
    trace: '.codex/log/codex-login.log',
    urlDeadlineSeconds: 20,
    explainFailure(output) {
      if (/error_code="access_denied"|Sign-in failed: .*denied/i.test(output)) return 'login_denied';
      // The provider answered the token exchange, and the answer was no. Without an answer the CLI itself failed.
      if (
        /callback state mismatch|oauth callback returned error|token endpoint returned status 4/i.test(output)
      ) {
        return 'login_rejected';
      }
      return 'login_cli_failed';
    },
    rejectedWhileWaiting: (output) => output.includes('login callback state mismatch'),
  },
  credential: {
    directory: '.codex',
    files: [{ path: AUTH_FILE, mode: 0o600, required: true }],
    check,
  },
  // auth.json alone is enough: the terminal interface opens straight at its prompt.
  installs: () => [],
  verify: {
    argv: ['codex', 'login', 'status'],
    env: {},
    loggedIn: (output) => /^Logged in using ChatGPT/m.test(output),
  },
  prompt: (prompt) => ({ argv: ['codex', 'exec', '--json', '--skip-git-repo-check', prompt], env: {} }),
};
