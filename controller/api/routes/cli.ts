/** The prompt API: one prompt to the person's own CLI, its events streamed. */
import type { FastifyBaseLogger } from 'fastify';
import { z } from 'zod';
import { ExecEvent, type ExecRequest } from '../../../protocol/agent.ts';
import type { Machine } from '../../../protocol/api.ts';
import { type ErrorReport, PolydevError } from '../../../protocol/errors.ts';
import { ProviderId, UserId } from '../../../protocol/ids.ts';
import { Realm } from '../../../protocol/machine.ts';
import { encodeSse, textStream } from '../../streams/lines.ts';
import { actingFor, callerOf } from '../caller.ts';
import type { Api, RouteContext } from '../context.ts';
import { reportOf, toPolydevError } from '../errors.ts';
import { ErrorReply, errorReplies } from '../openapi.ts';

const PROMPT_TIMEOUT_MS = 30 * 60_000;
const PROMPT_MAX = 262_144;

const PromptRequest = z.strictObject({
  prompt: z.string().min(1).max(PROMPT_MAX),
  /** Whose CLI; only an operator may name somebody else. */
  userId: UserId.optional(),
  realm: Realm.optional(),
});

/** A failure after the reply has begun is the last line. */
const PromptEvent = z.union([
  ExecEvent,
  z.object({ type: z.literal('error'), error: ErrorReply.shape.error }),
]);
type PromptEvent = ExecEvent | { type: 'error'; error: ErrorReport };

export function addCliRoutes(app: Api, context: RouteContext): void {
  const { machines, credentials } = context.services;

  app.post(
    '/api/cli/:provider/exec',
    {
      bodyLimit: PROMPT_MAX * 6,
      config: { startsMachine: true },
      schema: {
        tags: ['cli'],
        summary: 'Send a prompt to the connected CLI',
        description:
          'Runs the prompt in the person’s CLI machine, which is started or woken first. The reply is NDJSON, or server-sent events when asked for by Accept: what the CLI prints as it prints it, then `exit`. A failure on the way is a last event of type `error`. Ending the connection ends the command.',
        params: z.object({ provider: ProviderId }),
        body: PromptRequest,
        response: {
          200: {
            description: 'Events as they happen',
            content: {
              'application/x-ndjson': { schema: PromptEvent },
              'text/event-stream': { schema: z.string() },
            },
          },
          ...errorReplies(
            'bad_request',
            'forbidden',
            'credential_missing',
            'host_unreachable',
            'machine_start_failed',
          ),
        },
      },
    },
    async (request, reply) => {
      const caller = callerOf(request);
      const userId = actingFor(caller, request.body.userId);
      const realm = request.body.realm ?? 'internet';
      const provider = context.providers.find(({ id }) => id === request.params.provider);
      if (provider === undefined) throw new PolydevError('not_found', 'no such provider');
      const machine = await holderOf(userId, provider.id, realm);
      if (machine.state === 'stopped') await machines.start(machine.id);

      const { argv, env } = provider.prompt(request.body.prompt);
      const command: ExecRequest = { argv: [...argv], env: { ...env }, timeoutMs: PROMPT_TIMEOUT_MS };
      const stream = context.openStreams.open('exec', caller, async () => undefined);
      const sse = request.headers.accept?.includes('text/event-stream') === true;
      const events = run(machine, command, stream.signal, request.id, request.log);
      await context.audit.record({ caller, action: 'cli.prompt', target: machine.id });
      const body = textStream<PromptEvent>(
        events,
        (event) => (sse ? encodeSse({ event: event.type, data: event }) : `${JSON.stringify(event)}\n`),
        {
          // An empty line is nothing in NDJSON, and keeps the connection alive.
          beat: async () => (stream.signal.aborted ? undefined : sse ? ': beat\n\n' : '\n'),
          stop: () => {
            stream.end(1000, 'closed');
            stream[Symbol.dispose]();
          },
          ...(context.timing?.heartbeatMs === undefined ? {} : { beatMs: context.timing.heartbeatMs }),
        },
      );
      return reply.type(sse ? 'text/event-stream' : 'application/x-ndjson').send(body as never);
    },
  );

  /** The person's CLI machine that holds a credential of this provider, or will when it is started. */
  async function holderOf(userId: UserId, provider: ProviderId, realm: Realm): Promise<Machine> {
    const mine = (await credentials.list({ userId })).filter(
      (credential) => credential.provider === provider && credential.realm === realm,
    );
    for (const credential of mine) {
      if (credential.holderMachineId === null) continue;
      const machine = await machines.get(credential.holderMachineId);
      if (machine?.actions.includes('open_terminal') === true) return machine;
    }
    if (mine.some((credential) => credential.holderMachineId === null)) {
      // What nobody holds is installed when the machine starts.
      const asleep = (await machines.list({ userId })).find(
        (machine) => machine.kind === 'cli' && machine.realm === realm && machine.state === 'stopped',
      );
      if (asleep !== undefined) return asleep;
    }
    throw new PolydevError('credential_missing', `no CLI machine is connected to ${provider}`);
  }

  async function* run(
    machine: Machine,
    command: ExecRequest,
    signal: AbortSignal,
    requestId: string,
    log: FastifyBaseLogger,
  ): AsyncGenerator<PromptEvent> {
    try {
      yield* machines.exec(machine.id, command, signal);
      signal.throwIfAborted();
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const error = toPolydevError(thrown);
      log.error({ err: error, code: error.code, machine: machine.id }, 'a prompt failed');
      yield { type: 'error', error: reportOf(error, requestId) };
    }
  }
}
