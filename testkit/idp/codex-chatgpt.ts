/** The part of chatgpt.com without which a Codex prompt fails: the account check and the streamed answer. */
import { decoded, json, parseJson, type Reply, type Request } from './http.ts';
import { randomId, type TokenMint } from './tokens.ts';

const MAX_BODY = 32 * 2 ** 20;

/** Every answer to a prompt starts with this, then repeats the prompt: a test sees that its own words made the trip. */
export const ANSWER_PREFIX = 'The test identity provider heard: ';

/** Answers for chatgpt.com; `authClaim` is the claim of the access token that names the account. */
export function chatgpt(mint: TokenMint, authClaim: string): (request: Request) => Reply | undefined {
  return (request) => {
    const route = `${request.method} ${request.url.pathname}`;
    if (route === 'GET /backend-api/wham/accounts/check') return withAccount(request, accounts);
    if (route === 'POST /backend-api/codex/responses') return withAccount(request, () => answer(request));
    return undefined;
  };

  function withAccount(request: Request, then: (account: string) => Reply): Reply {
    const [scheme, token = ''] = (request.headers.authorization ?? '').split(' ');
    const auth = scheme === 'Bearer' ? mint.verify(token)?.[authClaim] : undefined;
    const account =
      typeof auth === 'object' && auth !== null && 'chatgpt_account_id' in auth && auth.chatgpt_account_id;
    if (typeof account === 'string') return then(account);
    return json(
      401,
      { error: { message: 'the access token is missing, foreign or expired', code: 'token_expired' } },
      'no valid token',
    );
  }
}

function accounts(id: string): Reply {
  const where = { workspace_backend_origin: 'NO_CONSTRAINT', account_routing_override: 'NO_CONSTRAINT' };
  return json(200, { accounts: [{ id, ...where }] });
}

function answer(request: Request): Reply {
  const body = decoded(request.body, request.headers['content-encoding'], MAX_BODY);
  const text = `${ANSWER_PREFIX}${lastWordsOfUser(parseJson(body.toString('utf8')))}`;
  return {
    status: 200,
    headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store' },
    body: events(text),
    note: 'answered',
  };
}

/** The text of the last user message of a Responses request; '' when there is none. */
function lastWordsOfUser(body: unknown): string {
  const input = isRecord(body) && Array.isArray(body.input) ? body.input : [];
  const message = input.findLast((item: unknown) => isRecord(item) && item.role === 'user');
  const content = isRecord(message) ? message.content : undefined;
  if (typeof content === 'string') return content;
  const parts = Array.isArray(content) ? content : [];
  return parts
    .map((part: unknown) => (isRecord(part) && typeof part.text === 'string' ? part.text : ''))
    .join('');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

async function* events(text: string): AsyncGenerator<string> {
  const id = `resp_${randomId()}`;
  const itemId = `msg_${randomId()}`;
  const item = {
    id: itemId,
    type: 'message',
    role: 'assistant',
    status: 'completed',
    content: [{ type: 'output_text', text, annotations: [] }],
  };
  const tokens = Math.ceil(text.length / 4);
  const usage = {
    input_tokens: tokens,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: tokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: 2 * tokens,
  };
  const event = (type: string, data: object) =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`;
  const open = { ...item, status: 'in_progress', content: [] };
  yield event('response.created', { response: { id, status: 'in_progress' } });
  yield event('response.output_item.added', { output_index: 0, item: open });
  for (const delta of text.match(/\S+\s*/g) ?? []) {
    yield event('response.output_text.delta', { item_id: itemId, output_index: 0, content_index: 0, delta });
  }
  yield event('response.output_item.done', { output_index: 0, item });
  yield event('response.completed', { response: { id, status: 'completed', output: [item], usage } });
}
