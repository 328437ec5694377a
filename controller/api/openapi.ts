/**
 * The API's description: OpenAPI 3.1 made from the same zod schemas that check the requests. `openapi.json` beside this
 * file is its committed copy; a test makes it anew and compares.
 */
import swagger from '@fastify/swagger';
import type { FastifyInstance } from 'fastify';
import { createJsonSchemaTransform, createJsonSchemaTransformObject } from 'fastify-type-provider-zod';
import { z } from 'zod';
import * as agent from '../../protocol/agent.ts';
import * as api from '../../protocol/api.ts';
import { ERRORS, type ErrorCode, ErrorReport } from '../../protocol/errors.ts';
import { EvidenceFile } from '../../protocol/host.ts';

export const ErrorReply = z.object({ error: ErrorReport });

const registry = z.registry<{ id: string }>();
registry.add(ErrorReply, { id: 'ErrorReply' });
registry.add(ErrorReport, { id: 'ErrorReport' });
registry.add(api.Session, { id: 'Session' });
registry.add(api.TimelineEvent, { id: 'TimelineEvent' });
registry.add(api.Machine, { id: 'Machine' });
registry.add(api.Credential, { id: 'Credential' });
registry.add(api.Provider, { id: 'Provider' });
registry.add(api.Host, { id: 'Host' });
registry.add(api.Me, { id: 'Me' });
registry.add(api.Ticket, { id: 'Ticket' });
registry.add(api.TerminalControl, { id: 'TerminalControl' });
registry.add(agent.CredentialFacts, { id: 'CredentialFacts' });
registry.add(agent.CredentialStatus, { id: 'CredentialStatus' });
registry.add(agent.ExecEvent, { id: 'ExecEvent' });
registry.add(EvidenceFile, { id: 'EvidenceFile' });

type ErrorStatus = (typeof ERRORS)[ErrorCode]['status'];
type ErrorReplies = Partial<
  Record<ErrorStatus, { description: string; content: { 'application/json': { schema: typeof ErrorReply } } }>
>;

/** The error replies of a route: those named, and those that every route with an identity can give. */
export function errorReplies(...codes: ErrorCode[]): ErrorReplies {
  const all: ErrorCode[] = [...codes, 'unauthenticated', 'rate_limited', 'internal'];
  const byStatus = new Map<ErrorStatus, ErrorCode[]>();
  for (const code of new Set(all)) {
    const { status } = ERRORS[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const replies: ErrorReplies = {};
  for (const [status, of] of byStatus) {
    replies[status] = {
      description: of.map((code) => `\`${code}\`: ${ERRORS[code].remedy}`).join('\n\n'),
      content: { 'application/json': { schema: ErrorReply } },
    };
  }
  return replies;
}

/** A reply that is not JSON. */
export function textReply(type: string, description: string) {
  return { description, content: { [type]: { schema: z.string() } } };
}

function number(name: string, description: string) {
  return {
    name,
    in: 'query',
    required: false,
    description,
    schema: { type: 'integer' as const, minimum: 2, maximum: 1000 },
  };
}

const webSocket = (
  summary: string,
  description: string,
  purpose: string,
  more: ReturnType<typeof number>[] = [],
) => ({
  get: {
    tags: ['streams'],
    summary,
    description,
    security: [],
    parameters: [
      {
        name: 'ticket',
        in: 'query',
        required: true,
        description: `A ticket of purpose \`${purpose}\` from POST /api/tickets; it opens one stream once.`,
        schema: { type: 'string' as const },
      },
      ...more,
    ],
    responses: {
      '101': { description: 'The WebSocket is open.' },
      '401': {
        description: `\`ticket_invalid\`: ${ERRORS.ticket_invalid.remedy}`,
        content: { 'application/json': { schema: { $ref: '#/components/schemas/ErrorReply' } } },
      },
    },
  },
});

/** WebSockets have no place in a fastify schema, so their two entries are written by hand. */
const WEB_SOCKETS = {
  '/api/desktop': webSocket(
    'Live desktop',
    'Binary frames are RFB (VNC) bytes both ways, as noVNC speaks them. Ends with the session.',
    'desktop',
  ),
  '/api/terminals': webSocket(
    'Web terminal',
    'Binary frames are keystrokes and output; a text frame is a TerminalControl in JSON. A stopped machine is started.',
    'terminal',
    [number('cols', 'Columns at the start; default 80.'), number('rows', 'Rows at the start; default 24.')],
  ),
};

type JsonObject = { [key: string]: unknown };

/** Every schema name that something refers to, directly or through another schema. */
function referredTo(roots: unknown, schemas: JsonObject): Set<string> {
  const found = new Set<string>();
  const visit = (value: unknown): void => {
    if (value === null || typeof value !== 'object') return;
    for (const [key, child] of Object.entries(value)) {
      const name = key === '$ref' && typeof child === 'string' ? child.split('/').at(-1) : undefined;
      if (name === undefined) visit(child);
      else if (!found.has(name)) {
        found.add(name);
        visit(schemas[name]);
      }
    }
  };
  visit(roots);
  return found;
}

const BODILESS = new Set(['204', '302', '303']);

/** Says in plain OpenAPI what the generators leave odd; changes the document in place. */
function tidy(paths: { [path: string]: unknown }, schemas: JsonObject): void {
  const visit = (value: unknown): void => {
    if (value === null || typeof value !== 'object') return;
    const object = value as JsonObject;
    // The format says it; zod's pattern for it is 200 characters long.
    if (object.format === 'date-time') delete object.pattern;
    if (object.maximum === Number.MAX_SAFE_INTEGER) delete object.maximum;
    if (object.minimum === Number.MIN_SAFE_INTEGER) delete object.minimum;
    for (const child of Object.values(object)) visit(child);
  };
  visit(paths);
  visit(schemas);
  for (const path of Object.values(paths)) {
    for (const operation of Object.values(path as Record<string, Operation>)) {
      for (const [status, response] of Object.entries(operation.responses)) {
        if (BODILESS.has(status)) delete response.content;
        if (response.description === 'Default Response') {
          response.description = operation.summary ?? 'Done';
        }
      }
    }
  }
}

interface Operation {
  summary?: string;
  responses: Record<string, { description: string; content?: object }>;
}

const transformObject = createJsonSchemaTransformObject({ schemaRegistry: registry });

/** Registers the description; call before the routes. `app.swagger()` gives the document once the app is ready. */
export async function addOpenApi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Polydev',
        version: '0.1.0',
        description:
          'Connects an AI coding CLI to a person’s own account from any web browser. Every error is an `ErrorReply` with a code of a closed catalogue.',
      },
      tags: [
        { name: 'sessions', description: 'Login sessions: from the click to the stored credential.' },
        { name: 'machines', description: 'Browser and CLI machines, and the evidence they leave.' },
        { name: 'cli', description: 'Prompts to a connected CLI.' },
        { name: 'streams', description: 'Live desktop and terminal, opened with tickets.' },
        { name: 'credentials', description: 'What is connected. Never a token.' },
        { name: 'access', description: 'Who is calling, and how people sign in.' },
        { name: 'operation', description: 'Health, metrics and hosts.' },
      ],
      security: [{ apiKey: [] }, { webSession: [] }],
      components: {
        securitySchemes: {
          apiKey: { type: 'http', scheme: 'bearer', description: 'An API key: `pdk_...`.' },
          webSession: {
            type: 'apiKey',
            in: 'cookie',
            name: 'polydev_session',
            description: 'Set by a sign-in link. Unsafe calls with it must come from the same origin.',
          },
        },
      },
    },
    transform: createJsonSchemaTransform({ schemaRegistry: registry }),
    transformObject: (document) => {
      const made = transformObject(document) as JsonObject & {
        components: { schemas: JsonObject };
        paths: { [path: string]: unknown };
      };
      const paths = { ...made.paths, ...WEB_SOCKETS };
      tidy(paths, made.components.schemas);
      const used = referredTo(
        { paths, extra: { $ref: '#/components/schemas/TerminalControl' } },
        made.components.schemas,
      );
      const schemas = Object.fromEntries(
        Object.entries(made.components.schemas)
          .filter(([name]) => used.has(name))
          .sort(([a], [b]) => (a < b ? -1 : 1)),
      );
      const sorted = Object.fromEntries(Object.entries(paths).sort(([a], [b]) => (a < b ? -1 : 1)));
      return { ...made, paths: sorted, components: { ...made.components, schemas } };
    },
  });
}
