/** The controller's log: JSON lines without query strings, cookies, tickets, keys or sign-in tokens. */
import { type DestinationStream, type Logger, pino, stdSerializers } from 'pino';

const pathOf = (url: string | undefined): string => (url ?? '').split('?', 1)[0] ?? '';

/** The second line of defence: whatever slipped into a line in the shape of a secret is cut out of it. */
export function scrub(line: string): string {
  return line
    .replaceAll(/([?&](?:amp;)?[A-Za-z_][\w.-]*=)[^&\s"'\\]+/g, '$1[redacted]')
    .replaceAll(/\bpd[a-z]_[A-Za-z0-9_-]{8,}/g, '[redacted]')
    .replaceAll(/(Bearer\s+)[^\s"'\\]+/gi, '$1[redacted]')
    .replaceAll(/(polydev_session=)[^;\s"'\\]+/g, '$1[redacted]');
}

/** A logger. Paths are logged without their query: tickets, sign-in tokens and OAuth codes travel there. */
export function createLogger(options: { level: string; destination: DestinationStream }): Logger {
  return pino(
    {
      level: options.level,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: {
        req: (request: { method?: string; url?: string; ip?: string }) => ({
          method: request.method,
          path: pathOf(request.url),
          address: request.ip,
        }),
        res: (reply: { statusCode?: number }) => ({ status: reply.statusCode }),
        err: stdSerializers.errWithCause,
      },
      redact: {
        paths: [
          'token',
          'ticket',
          'password',
          'cookie',
          'authorization',
          '*.token',
          '*.ticket',
          '*.cookie',
          '*.authorization',
        ],
      },
      hooks: { streamWrite: scrub },
    },
    options.destination,
  );
}
