/**
 * OpenAI as the genuine Codex CLI meets it: auth.openai.com (pages, tokens, device flow) and the part of chatgpt.com that a
 * prompt needs. Endpoints and bodies were observed with @openai/codex 0.169.0; what it can do without is left to 404.
 */
import { createHash, randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { chatgpt } from './codex-chatgpt.ts';
import { IDP_HOSTS } from './hosts.ts';
import {
  fields,
  html,
  type Impersonation,
  isJson,
  json,
  type Reply,
  type Request,
  redirect,
} from './http.ts';
import { consentPage, deviceCodePage, donePage, errorPage, signInPage } from './pages.ts';
import { faultOf, SLOW_MS, TEST_PERSON } from './people.ts';
import { fingerprint, type RefreshToken, type Store, type Visit } from './store.ts';
import { ACCESS_TTL_S, randomId, type TokenMint } from './tokens.ts';

const CLIENT_ID = 'app_EMoamEEZ73f0CkXaXp7hrann';
const DEVICE_REDIRECT = 'https://auth.openai.com/deviceauth/callback';
const VISIT_MS = 30 * 60_000;
const CODE_MS = 5 * 60_000;
/** Inside the CLI's refresh margin of about 5 minutes. */
const SHORT_TTL_S = 120;
const ASKS = ['See your name and e-mail address', 'Stay signed in', 'Send prompts in your name'];
const AUTH_CLAIM = 'https://api.openai.com/auth';

const challengeOf = (verifier: string) => createHash('sha256').update(verifier).digest('base64url');
const inMs = (ms: number) => Date.now() + ms;

/** The Codex half of the test identity provider. */
export function codex(store: Store, mint: TokenMint): Impersonation {
  const routes: Record<string, (request: Request) => Reply | Promise<Reply>> = {
    'GET /oauth/authorize': authorize,
    'POST /oauth/sign-in': signIn,
    'GET /oauth/consent': consent,
    'POST /oauth/consent': decide,
    'POST /oauth/token': token,
    'POST /oauth/revoke': revoke,
    'POST /api/accounts/deviceauth/usercode': deviceStart,
    'POST /api/accounts/deviceauth/token': devicePoll,
    'GET /codex/device': () => html(200, deviceCodePage({ action: '/codex/device' })),
    'POST /codex/device': deviceEnter,
  };

  function authorize({ url }: Request): Reply {
    const get = (name: string) => url.searchParams.get(name) ?? '';
    const redirectUri = get('redirect_uri');
    const problem = authorizeProblem(get, redirectUri);
    if (problem) return html(400, errorPage(problem), problem);
    return openVisit({
      kind: 'redirect',
      redirectUri,
      state: get('state'),
      challenge: get('code_challenge'),
      scope: get('scope'),
    });
  }

  function openVisit(goal: Visit['goal']): Reply {
    const visit = randomId();
    store.change((data) => {
      data.visits[visit] = { expires: inMs(VISIT_MS), clientId: CLIENT_ID, goal };
    });
    return html(200, signInPage({ action: '/oauth/sign-in', visit }));
  }

  async function signIn(request: Request): Promise<Reply> {
    const { visit: id = '', email = '', password = '' } = fields(request);
    const visit = store.visit(id);
    if (!visit)
      return html(400, errorPage('This sign-in has run out. Start again from the CLI.'), 'visit unknown');
    await delay(email, request.signal);
    if (!/^[^\s@]+@[^\s@]+$/.test(email) || password !== TEST_PERSON.password) {
      const problem = 'This e-mail address and password do not fit together.';
      return html(
        403,
        signInPage({ action: '/oauth/sign-in', visit: id, email, problem }),
        'password refused',
      );
    }
    store.change((data) => {
      data.visits[id] = { ...visit, email };
    });
    return redirect(`/oauth/consent?visit=${id}`, 'signed in');
  }

  function consent({ url }: Request): Reply {
    const id = url.searchParams.get('visit') ?? '';
    const email = store.visit(id)?.email;
    if (!email) return html(400, errorPage('Nobody has signed in here.'), 'no signed-in visit');
    return html(
      200,
      consentPage({ action: '/oauth/consent', visit: id, email, app: 'Codex CLI', asks: ASKS }),
    );
  }

  async function decide(request: Request): Promise<Reply> {
    const { visit: id = '', decision } = fields(request);
    const visit = store.visit(id);
    if (!visit?.email) return html(400, errorPage('Nobody has signed in here.'), 'no signed-in visit');
    if (decision !== 'allow' && decision !== 'deny')
      return html(400, errorPage('Neither allowed nor denied.'));
    const { email, goal } = visit;
    await delay(email, request.signal);
    const allowed = decision === 'allow';
    const code = randomId();
    store.change((data) => {
      // One visit, one decision: going back in the browser cannot make a second code.
      delete data.visits[id];
      if (goal.kind === 'device') {
        const device = data.devices[goal.deviceId];
        if (device) Object.assign(device, { outcome: allowed ? 'allowed' : 'denied', email });
      } else if (allowed) {
        const { redirectUri, challenge, scope } = goal;
        const base = { used: false, clientId: visit.clientId, redirectUri, challenge, scope, email };
        data.codes[fingerprint(code)] = { ...base, expires: inMs(CODE_MS) };
      }
    });
    if (goal.kind === 'device') {
      const sentence = allowed
        ? 'The device is connected. You can close this page.'
        : 'The device was not connected.';
      return html(200, donePage(sentence), allowed ? 'allowed' : 'denied');
    }
    const state = faultOf(email) === 'wrong-state' ? randomId() : goal.state;
    const answer = allowed
      ? { code, state }
      : { error: 'access_denied', error_description: 'User denied', state };
    return redirect(`${goal.redirectUri}?${new URLSearchParams(answer)}`, allowed ? 'allowed' : 'denied');
  }

  async function token(request: Request): Promise<Reply> {
    const form = fields(request);
    switch (form.grant_type) {
      case 'authorization_code':
        return exchange(form, request.signal);
      case 'refresh_token':
        return isJson(request)
          ? refresh(form)
          : oauthError(400, 'invalid_request', 'a refresh is sent as JSON');
      case 'urn:ietf:params:oauth:grant-type:token-exchange':
        // Asks for an API key. A plain subscription has none, and the CLI logs in without it.
        return oauthError(401, 'invalid_client', 'no API key for this account');
      default:
        return oauthError(400, 'unsupported_grant_type', 'this grant type is not known');
    }
  }

  async function exchange(form: Record<string, string>, signal: AbortSignal): Promise<Reply> {
    const { code = '', client_id, redirect_uri, code_verifier = '' } = form;
    const found = store.code(code);
    if (!found) return oauthError(400, 'invalid_grant', 'code unknown or expired');
    if (found.used) return oauthError(400, 'invalid_grant', 'code was already used');
    // A wrong attempt spends the code too: a thief gets no second guess at the verifier.
    store.change((data) => {
      const kept = data.codes[fingerprint(code)];
      if (kept) kept.used = true;
    });
    if (client_id !== found.clientId)
      return oauthError(400, 'invalid_client', 'another client_id than at the start');
    if (redirect_uri !== found.redirectUri) return oauthError(400, 'invalid_grant', 'another redirect_uri');
    if (challengeOf(code_verifier) !== found.challenge)
      return oauthError(400, 'invalid_grant', 'PKCE does not match');
    await delay(found.email, signal);
    const fault = faultOf(found.email);
    if (fault === 'refused-code') return oauthError(400, 'invalid_grant', 'refused for this test person');
    const { clientId, scope, email } = found;
    const family = randomId();
    const ttl = fault === 'short-lived' ? SHORT_TTL_S : ACCESS_TTL_S;
    const tokens = issue({ clientId, scope, email, family, state: 'live' }, ttl, fault !== 'no-refresh');
    return json(200, tokens, fault === 'no-refresh' ? 'code exchanged, no refresh token' : 'code exchanged');
  }

  function issue(
    holder: RefreshToken,
    ttl: number,
    withRefresh: boolean,
    spent?: string,
  ): Record<string, unknown> {
    const { email, scope, clientId } = holder;
    const hash = fingerprint(email);
    const account = `test-account-${hash.slice(0, 12)}`;
    const auth = {
      chatgpt_account_id: account,
      chatgpt_user_id: `user-${hash.slice(0, 12)}`,
      chatgpt_plan_type: 'plus',
    };
    const common = { iss: 'https://auth.openai.com', sub: `test|${hash.slice(0, 16)}`, [AUTH_CLAIM]: auth };
    const refreshToken = withRefresh ? mint.refreshToken() : undefined;
    store.change((data) => {
      if (spent) data.refreshTokens[spent] = { ...holder, state: 'used' };
      if (refreshToken) data.refreshTokens[fingerprint(refreshToken)] = holder;
    });
    return {
      id_token: mint.jwt(
        { ...common, aud: [clientId], email, email_verified: true, name: 'Test Person' },
        ACCESS_TTL_S,
      ),
      access_token: mint.jwt(
        { ...common, aud: ['https://api.openai.com/v1'], client_id: clientId, scp: scope.split(' ') },
        ttl,
      ),
      ...(refreshToken ? { refresh_token: refreshToken } : {}),
      token_type: 'Bearer',
      expires_in: ttl,
      scope,
    };
  }

  function refresh(form: Record<string, string>): Reply {
    const { refresh_token: sent = '', client_id } = form;
    const holder = store.refreshToken(sent);
    if (!holder || client_id !== holder.clientId)
      return refreshError('refresh_token_invalidated', 'refresh token unknown');
    if (holder.state === 'used')
      return refreshError('refresh_token_reused', 'refresh token was already used');
    if (holder.state === 'revoked')
      return refreshError('refresh_token_invalidated', 'refresh token was revoked');
    return json(200, issue(holder, ACCESS_TTL_S, true, fingerprint(sent)), 'refreshed');
  }

  function revoke(request: Request): Reply {
    const { token: sent = '' } = fields(request);
    const family = store.refreshToken(sent)?.family;
    if (!family) return json(200, {}, 'nothing to revoke');
    store.change((data) => {
      for (const holder of Object.values(data.refreshTokens))
        if (holder.family === family) holder.state = 'revoked';
    });
    return json(200, {}, 'revoked');
  }

  function deviceStart(request: Request): Reply {
    if (fields(request).client_id !== CLIENT_ID)
      return oauthError(400, 'invalid_client', 'client_id is not known');
    const letter = () => 'BCDFGHJKLMNPQRSTVWXZ'.charAt(randomInt(20));
    const userCode = `${Array.from({ length: 4 }, letter).join('')}-${Array.from({ length: 5 }, letter).join('')}`;
    const id = randomId();
    store.change((data) => {
      data.devices[id] = { expires: inMs(VISIT_MS), userCode, clientId: CLIENT_ID, outcome: 'pending' };
    });
    return json(200, { device_auth_id: id, user_code: userCode, interval: '1' }, 'device waits');
  }

  function devicePoll(request: Request): Reply {
    const { device_auth_id: id = '', user_code } = fields(request);
    const device = store.device(id);
    if (!device || device.userCode !== user_code)
      return oauthError(400, 'invalid_grant', 'device unknown or expired');
    const { outcome, email } = device;
    if (outcome === 'pending') return oauthError(403, 'authorization_pending', 'device still waits');
    if (outcome !== 'allowed' || !email) return oauthError(400, 'access_denied', `device ${outcome}`);
    const code = randomId();
    const verifier = randomId();
    const challenge = challengeOf(verifier);
    store.change((data) => {
      data.devices[id] = { ...device, outcome: 'collected' };
      const base = {
        used: false,
        clientId: device.clientId,
        challenge,
        scope: 'openid profile email offline_access',
        email,
      };
      data.codes[fingerprint(code)] = { ...base, redirectUri: DEVICE_REDIRECT, expires: inMs(CODE_MS) };
    });
    return json(
      200,
      { authorization_code: code, code_challenge: challenge, code_verifier: verifier },
      'device allowed',
    );
  }

  function deviceEnter(request: Request): Reply {
    const userCode = (fields(request).user_code ?? '').trim().toUpperCase();
    const deviceId = store.deviceIdOf(userCode);
    if (deviceId) return openVisit({ kind: 'device', deviceId });
    const problem = 'No device waits with this code.';
    return html(403, deviceCodePage({ action: '/codex/device', problem }), 'user code unknown');
  }

  const [authHost, chatgptHost] = IDP_HOSTS.codex;
  const answerPrompt = chatgpt(mint, AUTH_CLAIM);
  return {
    hosts: IDP_HOSTS.codex,
    async handle(request) {
      if (request.host === chatgptHost) return answerPrompt(request);
      if (request.host !== authHost) return undefined;
      return routes[`${request.method} ${request.url.pathname}`]?.(request);
    },
  };
}

/** What is wrong with a request to sign in, if anything. Nothing is ever redirected for a request that is wrong. */
function authorizeProblem(get: (name: string) => string, redirectUri: string): string | undefined {
  if (get('response_type') !== 'code') return 'response_type is not "code"';
  if (get('client_id') !== CLIENT_ID) return 'client_id is not known';
  if (!isLoopback(redirectUri)) return 'redirect_uri is not the loopback callback of a CLI';
  if (get('code_challenge_method') !== 'S256') return 'code_challenge_method is not S256';
  if (!/^[A-Za-z0-9_-]{43}$/.test(get('code_challenge')))
    return 'code_challenge is not a SHA-256 in base64url';
  if (get('state').length < 8) return 'state is missing or too short';
  if (!get('scope').split(' ').includes('openid')) return 'scope lacks openid';
  return undefined;
}

function isLoopback(uri: string): boolean {
  if (!URL.canParse(uri)) return false;
  const { protocol, hostname, port, pathname, search, username } = new URL(uri);
  const local = hostname === '127.0.0.1' || hostname === 'localhost';
  return (
    protocol === 'http:' && local && port !== '' && pathname === '/auth/callback' && !search && !username
  );
}

function oauthError(status: number, error: string, description: string): Reply {
  return json(status, { error, error_description: description }, `${error}: ${description}`);
}

function refreshError(code: string, message: string): Reply {
  return json(401, { error: { message, type: 'invalid_request_error', param: null, code } }, code);
}

async function delay(email: string, signal: AbortSignal): Promise<void> {
  if (faultOf(email) === 'slow') await sleep(SLOW_MS, undefined, { signal });
}
