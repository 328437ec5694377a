/** What the routes are built from, and the type of the app that they are added to. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Provider } from '../../providers/provider.ts';
import type { Services } from '../services.ts';
import type { OpenStreams } from '../streams/watch.ts';
import type { Access, AuditLog, Authenticator } from './caller.ts';
import type { Limits } from './gate.ts';
import type { Tickets } from './tickets.ts';

export type Api = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>;

/** One part that must work before people are sent here. */
export interface ReadinessCheck {
  readonly name: string;
  /** What is wrong, in one sentence; undefined when nothing is. Throwing counts as wrong. */
  check(signal: AbortSignal): Promise<string | undefined>;
}

export interface ApiOptions {
  readonly services: Services;
  readonly access: Access;
  readonly audit: AuditLog;
  readonly providers: readonly Provider[];
  /** Secret bytes for signing tickets, at least 32. */
  readonly ticketKey: Uint8Array;
  /** Beside the host service and the image, which are checked anyway; for example the database. */
  readonly readiness: readonly ReadinessCheck[];
  /** Where people reach the dashboard; absent: by whatever name they use, over plain HTTP. */
  readonly publicUrl?: URL;
  /** The built dashboard; need not exist. */
  readonly webDist: string;
  readonly allowTestRealm: boolean;
  readonly logger: FastifyBaseLogger;
  /** Further ways to prove an identity, asked after API keys and browser sessions. */
  readonly authenticators?: readonly Authenticator[];
  readonly limits?: Partial<Limits>;
  /** Told every route as it is added. */
  readonly onRoute?: (method: string, url: string) => void;
  /** Milliseconds; defaults suit people, tests shorten them. */
  readonly timing?: { heartbeatMs?: number; pingMs?: number; checkMs?: number; readyMs?: number };
}

/** What every route file gets. */
export interface RouteContext extends ApiOptions {
  readonly tickets: Tickets;
  readonly openStreams: OpenStreams;
}
