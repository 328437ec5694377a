/** Machines: list, look, read what they left behind, start, stop, destroy. */
import { z } from 'zod';
import { Machine } from '../../../protocol/api.ts';
import { DiagnosisReply } from '../../../protocol/diagnoses.ts';
import { PolydevError } from '../../../protocol/errors.ts';
import { EvidenceFile } from '../../../protocol/host.ts';
import { MachineId, UserId } from '../../../protocol/ids.ts';
import type { MachineAction } from '../../../protocol/lifecycles.ts';
import { type Caller, callerOf, listFilter, owned } from '../caller.ts';
import type { Api, RouteContext } from '../context.ts';
import { errorReplies, textReply } from '../openapi.ts';

const Params = z.object({ id: MachineId });
/** A plain file name: no folder, no hidden file. */
const FileName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/, 'a plain file name');
const TEXT = 'text/plain; charset=utf-8';

/** Texts are shown as texts, also JSON; the one picture is a picture. */
const typeOf = (name: string): string => (name.endsWith('.png') ? 'image/png' : TEXT);

const SUMMARIES = {
  start: 'Start a stopped CLI machine',
  hibernate: 'Let a CLI machine stand still with all that runs in it; whatever needs it wakes it',
  resume: 'Let a CLI machine that hibernates go on',
  stop: 'Stop a CLI machine; its disk stays',
} as const;

export function addMachineRoutes(app: Api, context: RouteContext): void {
  const { machines } = context.services;
  const find = async (caller: Caller, id: MachineId) => owned(caller, await machines.get(id), 'machine');

  app.get(
    '/api/machines',
    {
      schema: {
        tags: ['machines'],
        summary: 'List machines, newest first, at most 200',
        description:
          'Machines that are gone stay listed for a while. An operator sees everybody’s unless it names a person.',
        querystring: z.strictObject({ userId: UserId.optional() }),
        response: {
          200: z.object({ machines: z.array(Machine) }),
          ...errorReplies('bad_request', 'forbidden'),
        },
      },
    },
    async (request) => ({
      machines: await machines.list(listFilter(callerOf(request), request.query.userId)),
    }),
  );

  app.get(
    '/api/machines/:id',
    {
      schema: {
        tags: ['machines'],
        summary: 'State, boot checklist and error of a machine',
        params: Params,
        response: { 200: Machine, ...errorReplies('bad_request', 'not_found') },
      },
    },
    async (request) => find(callerOf(request), request.params.id),
  );

  app.get(
    '/api/machines/:id/console',
    {
      schema: {
        tags: ['machines'],
        summary: 'The machine’s console from its first byte, bounded',
        params: Params,
        response: {
          200: textReply(TEXT, 'The console'),
          ...errorReplies('bad_request', 'not_found', 'host_unreachable'),
        },
      },
    },
    async (request, reply) => {
      const machine = await find(callerOf(request), request.params.id);
      return reply.type(TEXT).send(await machines.console(machine.id));
    },
  );

  app.get(
    '/api/machines/:id/evidence',
    {
      schema: {
        tags: ['machines'],
        summary: 'The files that a machine left; also after it is gone',
        params: Params,
        response: {
          200: z.object({ files: z.array(EvidenceFile) }),
          ...errorReplies('bad_request', 'not_found', 'host_unreachable'),
        },
      },
    },
    async (request) => {
      const machine = await find(callerOf(request), request.params.id);
      return { files: await machines.evidence(machine.id) };
    },
  );

  app.get(
    '/api/machines/:id/evidence/:name',
    {
      schema: {
        tags: ['machines'],
        summary: 'One file of the evidence',
        params: Params.extend({ name: FileName }),
        response: {
          200: textReply(TEXT, 'The file'),
          ...errorReplies('bad_request', 'not_found', 'host_unreachable'),
        },
      },
    },
    async (request, reply) => {
      const machine = await find(callerOf(request), request.params.id);
      const { name } = request.params;
      const content = await machines.evidenceFile(machine.id, name);
      // Bytes are sent as they are; the schema says for readers of the document what most files hold.
      return reply.type(typeOf(name)).send(content as unknown as string);
    },
  );

  app.get(
    '/api/machines/:id/diagnosis',
    {
      schema: {
        tags: ['machines'],
        summary: 'Why a machine does not work: a name, the lines that prove it, what to do',
        description:
          'Null when nothing is wrong as far as can be seen. A machine that runs is looked at now (up to a few seconds); ' +
          'one that failed keeps the answer it got then.',
        params: Params,
        response: {
          200: DiagnosisReply,
          ...errorReplies('bad_request', 'not_found', 'host_unreachable'),
        },
      },
    },
    async (request) => {
      const machine = await find(callerOf(request), request.params.id);
      return { diagnosis: await machines.diagnosis(machine.id) };
    },
  );

  const act = (action: Exclude<MachineAction, 'open_terminal'>, machine: Machine) => {
    if (!machine.actions.includes(action)) {
      throw new PolydevError(
        'conflict',
        `a ${machine.kind} machine that is ${machine.state} cannot do this: ${action}`,
      );
    }
    return machines[action](machine.id);
  };

  for (const action of ['start', 'hibernate', 'resume', 'stop'] as const) {
    app.post(
      `/api/machines/:id/${action}`,
      {
        config: { startsMachine: action === 'start' || action === 'resume' },
        schema: {
          tags: ['machines'],
          summary: SUMMARIES[action],
          params: Params,
          response: {
            200: Machine,
            ...errorReplies(
              'bad_request',
              'not_found',
              'conflict',
              'host_unreachable',
              'machine_start_failed',
              ...(action === 'hibernate' ? (['machine_hibernate_failed'] as const) : []),
            ),
          },
        },
      },
      async (request) => act(action, await find(callerOf(request), request.params.id)),
    );
  }

  app.delete(
    '/api/machines/:id',
    {
      schema: {
        tags: ['machines'],
        summary: 'Destroy a machine and its disk; its evidence stays',
        params: Params,
        response: {
          200: Machine,
          ...errorReplies('bad_request', 'not_found', 'conflict', 'host_unreachable'),
        },
      },
    },
    async (request) => {
      const machine = await find(callerOf(request), request.params.id);
      // Repeating a removal is no mistake.
      return machine.state === 'destroyed' || machine.state === 'destroying'
        ? machine
        : act('destroy', machine);
    },
  );
}
