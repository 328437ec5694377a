/** Credential files as the Codex CLI writes them, with tokens that a test can search for. */
import type { CredentialFile } from '../../protocol/agent.ts';

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** @param canary becomes part of every token and must be found nowhere else afterwards */
export function codexFiles(canary: string, options: { incomplete?: boolean } = {}): CredentialFile[] {
  const claims = {
    email: 'ada@example.test',
    exp: 4_000_000_000,
    'https://api.openai.com/auth': { chatgpt_account_id: 'acct-ada', chatgpt_plan_type: 'plus' },
  };
  const jwt = (name: string) => `${part({ alg: 'none' })}.${part(claims)}.${name}-${canary}`;
  const auth = {
    auth_mode: 'chatgpt',
    OPENAI_API_KEY: null,
    tokens: {
      id_token: jwt('id'),
      access_token: jwt('access'),
      refresh_token: options.incomplete === true ? '' : `refresh-${canary}`,
      account_id: 'acct-ada',
    },
    last_refresh: '2026-01-01T00:00:00Z',
  };
  const contentBase64 = Buffer.from(JSON.stringify(auth)).toString('base64');
  return [{ path: '.codex/auth.json', mode: 0o600, contentBase64 }];
}
