/** One place where anything thrown becomes `{error: ErrorReport}`. */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { ERRORS, type ErrorReport, PolydevError } from '../../protocol/errors.ts';
import { setSecurityHeaders } from './headers.ts';

/** What a body, a query or a path got wrong, field by field; never the values, which may be secret. */
function describeFields(error: FastifyError): string {
  const where = error.validationContext ?? 'request';
  return (error.validation ?? [])
    .slice(0, 10)
    .map((issue) => {
      const unknownKeys = issue.params.keys;
      const field = issue.instancePath.split('/').filter(Boolean).join('.');
      const names = Array.isArray(unknownKeys) ? unknownKeys.join(', ') : undefined;
      return `${where}${field === '' ? '' : `.${field}`}: ${names === undefined ? issue.message : `unknown ${names}`}`;
    })
    .join('; ');
}

/**
 * Any thrown value as a PolydevError. What fastify itself refuses (bad JSON, too large, wrong content type) is the
 * caller's mistake; everything else that is not ours is `internal`, and its text stays in the log.
 */
export function toPolydevError(thrown: unknown): PolydevError {
  if (thrown instanceof PolydevError) return thrown;
  if (hasZodFastifySchemaValidationErrors(thrown)) {
    return new PolydevError('bad_request', describeFields(thrown as unknown as FastifyError));
  }
  if (thrown instanceof Error && 'statusCode' in thrown && 'code' in thrown) {
    const { statusCode, code } = thrown;
    if (code === 'FST_ERR_BAD_URL') return new PolydevError('bad_request', 'the path is not a valid URL');
    if (typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500) {
      return new PolydevError('bad_request', thrown.message, { cause: thrown });
    }
  }
  return new PolydevError('internal', 'something failed that should not have', { cause: thrown });
}

/** The report of an error as it is sent: with the id under which the log knows the request. */
export function reportOf(error: PolydevError, requestId: string): ErrorReport {
  return { ...error.toReport(), requestId };
}

function answer(thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const error = toPolydevError(thrown);
  const level = ERRORS[error.code].fault === 'user' ? 'info' : 'error';
  request.log[level]({ err: error, code: error.code }, 'call refused');
  return reply
    .code(error.status)
    .type('application/json')
    .send(JSON.stringify({ error: reportOf(error, request.id) }));
}

export function addErrorHandler(app: FastifyInstance): void {
  app.setErrorHandler((thrown, request, reply) => answer(thrown, request, reply));
}

/** For what fastify refuses before it has a route, for example a path that cannot be decoded. */
export const frameworkErrors = (thrown: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
  setSecurityHeaders(reply);
  void answer(thrown, request, reply);
};
