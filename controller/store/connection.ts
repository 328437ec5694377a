/** Tells the loss of the database's connection from everything else that a query may fail with. */
import { PolydevError } from '../../protocol/errors.ts';

/** SQLSTATE classes and codes of a server that goes, comes or is not reached. */
const SQLSTATE = /^(08...|57P0[123])$/;
const SYSTEM = new Set(['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH']);
const UNNAMED = new Set<string>(['internal', 'database_unreachable']);
/** Errors of the client library that carry no code. */
const MESSAGE =
  /^(Connection terminated|Client has encountered a connection error|timeout exceeded when trying to connect|Query read timeout)/;
const MAX_CAUSES = 8;

/**
 * Whether an error says, itself or by its causes, that the database was not there: the work may be repeated as it is when it
 * is back. Whether the last commit took place is not known.
 */
export function isConnectionLost(thrown: unknown): boolean {
  let error = thrown;
  for (let depth = 0; depth < MAX_CAUSES && error instanceof Error; depth++) {
    // What has a name (a host that is not reached, say) is something else, whatever socket it was.
    if (error instanceof PolydevError && !UNNAMED.has(error.code)) return false;
    if (error instanceof AggregateError && error.errors.some(isConnectionLost)) return true;
    const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
    const system =
      SYSTEM.has(code) && 'syscall' in error && ['connect', 'read', 'write'].includes(String(error.syscall));
    if (SQLSTATE.test(code) || system || MESSAGE.test(error.message)) return true;
    error = error.cause;
  }
  return false;
}
