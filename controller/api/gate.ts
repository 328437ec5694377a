/**
 * The one hook that every request passes: rate limits, then identity. A route needs an identity unless its config
 * says otherwise, so that a forgotten setting closes a route instead of opening it.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { PolydevError } from '../../protocol/errors.ts';
import type { Authenticator, Caller } from './caller.ts';

/** Calls per minute. */
export interface Limits {
  /** Of one API key or browser session. */
  readonly perCaller: number;
  /** Of one address on routes that need no identity. */
  readonly perAddress: number;
  /** Refused identities of one address; enough for a forgotten tab that asks again with an old session. */
  readonly refusedPerAddress: number;
  /** Login sessions that one caller starts: each costs a machine. */
  readonly startsPerCaller: number;
}

export const DEFAULT_LIMITS: Limits = {
  perCaller: 1200,
  perAddress: 1200,
  refusedPerAddress: 300,
  startsPerCaller: 60,
};

type Gate = 'public' | 'unlimited' | 'operator';

declare module 'fastify' {
  interface FastifyRequest {
    caller: Caller | null;
  }
  interface FastifyContextConfig {
    /**
     * `public`: no identity needed (limited by address). `unlimited`: no identity, no limit (health checks).
     * `operator`: only an operator. Absent: any identity.
     */
    gate?: Gate;
    /** The route starts machines and has the stricter limit. */
    startsMachine?: boolean;
    /** The route is a WebSocket; others refuse an upgrade. */
    stream?: boolean;
  }
}

type Check = ReturnType<FastifyInstance['createRateLimit']>;

/**
 * Adds the hook. `@fastify/rate-limit` must be registered (not global) before.
 * @throws in requests: PolydevError unauthenticated, forbidden, rate_limited, bad_request
 */
export function addGate(
  app: FastifyInstance,
  authenticators: readonly Authenticator[],
  limits: Limits = DEFAULT_LIMITS,
): void {
  const limiter = (name: string, max: number, key: (request: FastifyRequest) => string): Check =>
    app.createRateLimit({
      max,
      timeWindow: '1 minute',
      keyGenerator: (request) => `${name} ${key(request)}`,
    });
  const callerKey = (request: FastifyRequest) => `${request.caller?.proof.kind} ${request.caller?.proof.id}`;
  const byCaller = limiter('caller', limits.perCaller, callerKey);
  const starts = limiter('starts', limits.startsPerCaller, callerKey);
  const byAddress = limiter('address', limits.perAddress, (request) => request.ip);
  const refused = limiter('refused', limits.refusedPerAddress, (request) => request.ip);

  app.decorateRequest('caller', null);
  app.addHook('onRequest', async (request, reply) => {
    const { gate, startsMachine, stream } = request.routeOptions.config;
    if (request.ws && stream !== true && !request.is404) {
      throw new PolydevError('bad_request', 'this path is not a WebSocket');
    }
    if (gate === 'unlimited') return;
    if (gate === 'public' || request.is404) return spend(byAddress, request, reply);

    // An address that keeps guessing is turned away before its next guess is looked at.
    await spend(refused, request, reply, { increment: false });
    try {
      request.caller = await identify(request, authenticators);
    } catch (thrown) {
      if (thrown instanceof PolydevError && thrown.code === 'unauthenticated') {
        await spend(refused, request, reply);
      }
      throw thrown;
    }
    await spend(byCaller, request, reply);
    if (startsMachine === true) await spend(starts, request, reply);
    if (gate === 'operator' && request.caller.role !== 'operator') {
      throw new PolydevError('forbidden', 'only an operator may do this');
    }
  });
}

async function identify(request: FastifyRequest, authenticators: readonly Authenticator[]): Promise<Caller> {
  for (const authenticator of authenticators) {
    const caller = await authenticator.authenticate(request);
    if (caller !== undefined) return caller;
  }
  throw new PolydevError('unauthenticated', 'the request carries neither an API key nor a browser session');
}

async function spend(
  check: Check,
  request: FastifyRequest,
  reply: FastifyReply,
  options: { increment: boolean } = { increment: true },
): Promise<void> {
  const result = await check(request, options);
  if (result.isAllowed || !result.isExceeded) return;
  reply.header('retry-after', String(result.ttlInSeconds));
  throw new PolydevError('rate_limited', `too many calls; wait ${result.ttlInSeconds} s`);
}
