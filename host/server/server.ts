/** host/server/: protocol/host.ts as HTTP over a unix socket that one user may open. */

import { chmod, chown, rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import fastify, { type FastifyInstance, type RawServerDefault } from 'fastify';
import type { Logger } from 'pino';
import { z } from 'zod';
import { DiagnosisRequest } from '../../protocol/diagnoses.ts';
import type { DoctorReport } from '../../protocol/doctor.ts';
import { ERRORS, PolydevError } from '../../protocol/errors.ts';
import {
  type HostHealth,
  LookRequest,
  UPLOADED_EVIDENCE,
  type UploadedEvidence,
} from '../../protocol/host.ts';
import { ImageId, MachineId } from '../../protocol/ids.ts';
import { MachineSpec } from '../../protocol/machine.ts';
import type { Examiner } from '../diagnosis/examiner.ts';
import type { Watcher } from '../diagnosis/watcher.ts';
import { agentVersionOf } from '../images/manifest.ts';
import type { ImageStore } from '../images/store.ts';
import type { MachineManager } from '../machines/manager.ts';
import { handleDial } from './dial.ts';

export interface ServerOptions {
  socketPath: string;
  socketUid: number;
  machines: MachineManager;
  examiner: Examiner;
  watcher: Watcher;
  images: Pick<ImageStore, 'get'>;
  health: () => Promise<HostHealth>;
  /** Tries everything; seconds. */
  doctor: () => Promise<DoctorReport>;
  log: Logger;
}

type Routes = FastifyInstance<RawServerDefault, IncomingMessage, ServerResponse, Logger>;

const Uploaded = z.enum(Object.keys(UPLOADED_EVIDENCE) as [UploadedEvidence, ...UploadedEvidence[]]);
const MAX_UPLOAD = Math.max(...Object.values(UPLOADED_EVIDENCE));

const typeOf = (name: string): string =>
  name.endsWith('.png')
    ? 'image/png'
    : name.endsWith('.json')
      ? 'application/json; charset=utf-8'
      : 'text/plain; charset=utf-8';

const MAX_WAIT_S = 60;
const Wait = z.object({ wait: z.coerce.number().min(0).max(MAX_WAIT_S).default(0) });

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'value'}: ${issue.message}`);
  throw new PolydevError('bad_request', issues.join('; '));
}

const idOf = (request: { params: unknown }): MachineId =>
  parse(z.object({ id: MachineId }), request.params).id;

function routes(app: Routes, options: ServerOptions): void {
  const { machines, examiner, watcher, images, health, doctor } = options;
  app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) =>
    done(null, body),
  );
  app.get('/v1/health', () => health());
  app.get('/v1/doctor', () => doctor());
  app.get('/v1/images/:id', async (request) => {
    const { id } = parse(z.object({ id: ImageId }), request.params);
    const manifest = await images.get(id);
    if (manifest === undefined) throw new PolydevError('not_found', `this host has no image ${id}`);
    return { id, agentVersion: agentVersionOf(manifest) };
  });
  app.post('/v1/machines/:id/look', async (request) => {
    const id = idOf(request);
    const asked = parse(LookRequest, request.body);
    const machine = await machines.examined(id);
    if (machine === undefined) throw new PolydevError('not_found', `this host has no machine ${id}`);
    return { diagnosis: await watcher.look(id, machine, asked) };
  });
  app.get('/v1/machines', () => ({ machines: machines.list() }));
  app.put('/v1/machines/:id', (request) => {
    const spec = parse(MachineSpec, request.body);
    if (spec.id !== idOf(request))
      throw new PolydevError('bad_request', 'id: differs from the one in the path');
    return machines.put(spec);
  });
  app.get('/v1/machines/:id', (request) => machines.get(idOf(request)));
  app.get('/v1/machines/:id/exit', async (request) => {
    const { wait } = parse(Wait, request.query);
    return { exit: await machines.exit(idOf(request), wait * 1000) };
  });
  app.post('/v1/machines/:id/stop', (request) => machines.stop(idOf(request)));
  app.post('/v1/machines/:id/hibernate', (request) => machines.hibernate(idOf(request)));
  app.post('/v1/machines/:id/resume', (request) => machines.resume(idOf(request)));
  app.delete('/v1/machines/:id', async (request, reply) => {
    await machines.destroy(idOf(request));
    return reply.status(204).send();
  });
  app.get('/v1/machines/:id/console', async (request, reply) =>
    reply.type('text/plain; charset=utf-8').send(await machines.console(idOf(request))),
  );
  app.get('/v1/evidence/:id', async (request) => ({ files: await machines.evidence(idOf(request)) }));
  app.get('/v1/evidence/:id/:name', async (request, reply) => {
    const { name } = parse(z.object({ name: z.string() }), request.params);
    return reply.type(typeOf(name)).send(await machines.readEvidence(idOf(request), name));
  });
  app.put('/v1/evidence/:id/:name', { bodyLimit: MAX_UPLOAD }, async (request, reply) => {
    const { name } = parse(z.object({ name: Uploaded }), request.params);
    const content = request.body;
    if (!Buffer.isBuffer(content)) throw new PolydevError('bad_request', 'expected application/octet-stream');
    if (content.length > UPLOADED_EVIDENCE[name]) {
      throw new PolydevError('bad_request', `${name}: more than ${UPLOADED_EVIDENCE[name]} bytes`);
    }
    await machines.addEvidence(idOf(request), name, content);
    return reply.status(204).send();
  });
  app.post('/v1/evidence/:id/diagnosis', async (request) => {
    const id = idOf(request);
    const asked = parse(DiagnosisRequest, request.body);
    return { diagnosis: await examiner.diagnose(id, await machines.examined(id), asked) };
  });
}

/** Starts answering. Only `socketUid` (and root) may connect, from the socket's first moment. */
export async function startServer(options: ServerOptions): Promise<AsyncDisposable> {
  const { socketPath, socketUid, machines, log } = options;
  // Every request at `info` would bury what happens to machines.
  const quiet = log.child({}, { level: log.isLevelEnabled('warn') ? 'warn' : log.level });
  const app = fastify({ loggerInstance: quiet, forceCloseConnections: true });
  app.setErrorHandler((thrown, request, reply) => {
    const status = (thrown as { statusCode?: unknown }).statusCode;
    const callers = typeof status === 'number' && status >= 400 && status < 500;
    const error = PolydevError.from(thrown, callers ? 'bad_request' : 'internal');
    if (ERRORS[error.code].fault !== 'user') log.error({ err: thrown, url: request.url }, 'request failed');
    void reply.status(error.status).send({ error: error.toReport() });
  });
  app.setNotFoundHandler((request, reply) => {
    const error = new PolydevError('not_found', `no ${request.method} ${request.url}`);
    void reply.status(404).send({ error: error.toReport() });
  });
  routes(app, options);
  // An upgraded connection is no longer the HTTP server's: it is ended here.
  const channels = new Set<{ destroy(): unknown }>();
  app.server.on('upgrade', (request, socket, head) => {
    channels.add(socket);
    socket.once('close', () => channels.delete(socket));
    void handleDial(machines, request, socket, head);
  });
  await rm(socketPath, { force: true });
  const mask = process.umask(0o177);
  try {
    await app.listen({ path: socketPath });
  } finally {
    process.umask(mask);
  }
  await chmod(socketPath, 0o600);
  await chown(socketPath, socketUid, 0);
  return {
    async [Symbol.asyncDispose]() {
      for (const channel of channels) channel.destroy();
      await app.close();
    },
  };
}
