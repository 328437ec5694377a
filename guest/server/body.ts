import type { IncomingMessage } from 'node:http';
import type { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';

const MAX_BODY = 4 * 1024 * 1024;

/** The request's JSON body, checked. Errors are `bad_request` and never repeat values of the body. */
export async function readBody<T>(request: IncomingMessage, schema: z.ZodType<T>): Promise<T> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY) throw new PolydevError('bad_request', `the body is larger than ${MAX_BODY} bytes`);
    chunks.push(chunk);
  }
  let value: unknown;
  try {
    value = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new PolydevError('bad_request', 'the body is not JSON');
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`);
  throw new PolydevError('bad_request', problems.join('; ').slice(0, 1_000));
}
