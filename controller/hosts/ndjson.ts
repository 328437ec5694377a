/** Reads newline-delimited JSON as it arrives. */
import type { IncomingMessage } from 'node:http';
import type { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';

const MAX_LINE = 4 * 1024 * 1024;

/**
 * Each line, checked by a schema. Leaving the loop early ends the reply.
 * @throws machine_unreachable when the stream breaks or a line is not what was agreed; the signal's reason when it fired
 */
export async function* readLines<T>(
  response: IncomingMessage,
  schema: z.ZodType<T>,
  signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  let rest = '';
  try {
    response.setEncoding('utf8');
    for await (const chunk of response as AsyncIterable<string>) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      if (rest.length > MAX_LINE) throw new PolydevError('machine_unreachable', 'a line is too long');
      for (const line of lines) if (line !== '') yield parse(line, schema);
    }
    if (rest !== '') yield parse(rest, schema);
  } catch (error) {
    if (signal?.aborted === true) throw signal.reason;
    throw PolydevError.from(error, 'machine_unreachable');
  } finally {
    response.destroy();
  }
}

function parse<T>(line: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new PolydevError('machine_unreachable', 'a line of the stream is not JSON');
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const fields = parsed.error.issues.map((issue) => issue.path.join('.')).join(', ');
    throw new PolydevError('machine_unreachable', `a line of the stream is not as agreed: ${fields}`);
  }
  return parsed.data;
}
