/**
 * api/: who may call and how it travels: routes, identity, limits, errors, tickets, headers, log. What the calls do is
 * behind `controller/services.ts`.
 *
 * This file puts the parts together in the order in which a request passes them.
 */

import { randomUUID } from 'node:crypto';
import cookie from '@fastify/cookie';
import rateLimit from '@fastify/rate-limit';
import websocket from '@fastify/websocket';
import { fastify } from 'fastify';
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import { createOpenStreams } from '../streams/watch.ts';
import type { Api, ApiOptions, RouteContext } from './context.ts';
import { addErrorHandler, frameworkErrors } from './errors.ts';
import { addGate, DEFAULT_LIMITS } from './gate.ts';
import { addSecurityHeaders } from './headers.ts';
import { apiKeyAuthenticator, webSessionAuthenticator } from './identity.ts';
import { addMetrics } from './metrics.ts';
import { addOpenApi } from './openapi.ts';
import { addPages } from './pages.ts';
import { addAccessRoutes } from './routes/access.ts';
import { addCliRoutes } from './routes/cli.ts';
import { addCredentialRoutes } from './routes/credentials.ts';
import { addDoctorRoutes } from './routes/doctor.ts';
import { addMachineRoutes } from './routes/machines.ts';
import { addOperationRoutes } from './routes/operation.ts';
import { addSessionRoutes } from './routes/sessions.ts';
import { addSettingsRoutes } from './routes/settings.ts';
import { addStreamRoutes } from './routes/streams.ts';
import { createTickets } from './tickets.ts';

const BODY_LIMIT = 65_536;
/** The largest WebSocket message of a page; a pasted clipboard fits. */
const MAX_FRAME = 1_048_576;
const REQUEST_TIMEOUT_MS = 30_000;

/**
 * The controller's HTTP server, not yet listening. Closing it ends all streams first.
 * @throws PolydevError configuration_invalid when the ticket key is too short
 */
export async function buildApi(options: ApiOptions): Promise<Api> {
  const app: Api = fastify({
    loggerInstance: options.logger,
    genReqId: () => randomUUID(),
    bodyLimit: BODY_LIMIT,
    requestTimeout: REQUEST_TIMEOUT_MS,
    // Behind a proxy on this computer all people would have one address and share its limits: whoever guesses keys would
    // lock everybody out. Only such a proxy's word is taken.
    trustProxy: options.publicUrl === undefined ? false : 'loopback',
    forceCloseConnections: true,
    frameworkErrors,
  }).withTypeProvider<ZodTypeProvider>();
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);

  const openStreams = createOpenStreams(
    (proof) => options.access.holds(proof),
    (error) => options.logger.warn({ err: error }, 'checking an open stream failed'),
    options.timing?.checkMs,
  );
  const context: RouteContext = { ...options, tickets: createTickets(options.ticketKey), openStreams };
  app.addHook('preClose', async () => openStreams.endAll());

  app.addHook('onRoute', ({ method, url }) => {
    for (const name of [method].flat()) options.onRoute?.(name, url);
  });
  addErrorHandler(app);
  addSecurityHeaders(app, { https: options.publicUrl?.protocol === 'https:' });
  await app.register(cookie);
  await app.register(rateLimit, { global: false });
  await app.register(websocket, {
    options: {
      maxPayload: MAX_FRAME,
      // noVNC offers none or `binary`; any other name is somebody else's protocol.
      handleProtocols: (offered) => (offered.has('binary') ? 'binary' : false),
    },
    errorHandler: (error, socket, request) => {
      request.log.info({ err: error }, 'a WebSocket failed');
      socket.terminate();
    },
  });
  addGate(
    app,
    [
      apiKeyAuthenticator(options.access),
      webSessionAuthenticator(options.access, options.publicUrl),
      ...(options.authenticators ?? []),
    ],
    { ...DEFAULT_LIMITS, ...options.limits },
  );
  await addOpenApi(app);
  const metrics = addMetrics(app, options.services, openStreams);

  addSessionRoutes(app, context);
  addMachineRoutes(app, context);
  addCliRoutes(app, context);
  addAccessRoutes(app, context);
  addCredentialRoutes(app, context);
  addStreamRoutes(app, context);
  addDoctorRoutes(app, context);
  addOperationRoutes(app, context, metrics);
  addSettingsRoutes(app, context);
  await addPages(app, options.webDist);
  return app;
}
