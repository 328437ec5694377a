import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { emailFor, TEST_PERSON } from '../idp/people.ts';
import { codexForTests, missing } from './requirements.ts';
import { SealedResult } from './sealed.ts';

const CANARY = 'canary-of-the-sealed-login';
const codex = codexForTests();
const lacking = [
  ...(process.getuid?.() === 0 ? [] : ['root, for namespaces and mounts']),
  ...missing('unshare', 'ip', 'openssl', 'Xvnc', 'openbox', 'chromium'),
  ...(codex ? [] : ['a genuine codex (POLYDEV_TEST_CODEX, or a built golden image)']),
];

/** One login in fresh namespaces that have no way out. */
async function login(change: {
  email?: string;
  password?: string;
  consent?: 'deny';
  use?: true;
}): Promise<SealedResult> {
  const run = { codex, ...TEST_PERSON, consent: 'allow', canary: CANARY, ...change };
  const program = fileURLToPath(new URL('./sealed.ts', import.meta.url));
  const sealing = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const args = [...sealing, process.execPath, program, JSON.stringify(run)];
  const { stdout } = await promisify(execFile)('unshare', args, { timeout: 170_000 });
  return SealedResult.parse(JSON.parse(stdout));
}

const WHOLE_WAY = [
  'sign-in page seen',
  'e-mail typed',
  'password typed',
  'signed in',
  'consent page seen',
  'allowed',
  'left the provider',
];

describe.skipIf(lacking.length > 0)(
  `a person signs the genuine Codex in, seeing only pixels (missing: ${lacking.join(', ') || 'nothing'})`,
  { timeout: 180_000 },
  () => {
    it('and Codex is logged in, answers a prompt, and logs out', async () => {
      const result = await login({ use: true });
      expect(result.problem).toBeUndefined();
      expect(result.steps).toEqual(WHOLE_WAY);
      expect(result.login.code).toBe(0);
      expect(result.authFile).toEqual({
        mode: '600',
        email: TEST_PERSON.email,
        refreshToken: true,
        canary: true,
      });
      expect(result.status).toBe('Logged in using ChatGPT');
      expect(result.answer).toBe('The test identity provider heard: ping from the test');
      expect(result.logout).toBe('Successfully logged out');
      expect(result.requests).toContain('POST auth.openai.com/oauth/revoke 200 revoked');
      expect(JSON.stringify(result)).not.toContain(CANARY);
    });

    it('and Codex is told when they deny', async () => {
      const result = await login({ consent: 'deny' });
      expect(result.steps.slice(-2)).toEqual(['denied', 'left the provider']);
      expect(result.login.code).toBe(1);
      expect(result.login.output).toContain('User denied');
      expect(result.authFile).toBeUndefined();
    });

    it('and Codex keeps waiting after a wrong state', async () => {
      const result = await login({ email: emailFor('wrong-state') });
      expect(result.steps).toEqual(WHOLE_WAY);
      expect(result.login.code).toBeNull();
      expect(result.requests.filter((line) => line.includes('/oauth/token'))).toEqual([]);
    });

    it('and Codex refuses an answer without a refresh token', async () => {
      const result = await login({ email: emailFor('no-refresh') });
      expect(result.steps).toEqual(WHOLE_WAY);
      expect(result.login.code).toBe(1);
      expect(result.login.output).toContain('OAuth token response is invalid');
    });

    it('and Codex refreshes a token that is about to expire before it uses it', async () => {
      const result = await login({ email: emailFor('short-lived'), use: true });
      expect(result.answer).toBe('The test identity provider heard: ping from the test');
      expect(result.requests.filter((line) => line.endsWith('200 refreshed'))).toHaveLength(1);
    });

    it('and they notice that their password is refused', async () => {
      const result = await login({ password: 'not the password' });
      expect(result.problem).toMatch(/it refused the e-mail address and password/);
      expect(result.steps.at(-1)).toBe('password typed');
    });
  },
);
