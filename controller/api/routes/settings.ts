/** What an operator changes while everything runs, and what stays for a while because of it. */
import { CleanUp } from '../../../protocol/api.ts';
import { Settings, SettingsPatch } from '../../../protocol/settings.ts';
import { callerOf } from '../caller.ts';
import type { Api, RouteContext } from '../context.ts';
import { errorReplies } from '../openapi.ts';

export function addSettingsRoutes(app: Api, { services, audit }: RouteContext): void {
  const { operation } = services;

  app.get(
    '/api/settings',
    {
      config: { gate: 'operator' },
      schema: {
        tags: ['operation'],
        summary: 'How long things are kept, quotas, and what else an operator may change',
        response: { 200: Settings, ...errorReplies('forbidden') },
      },
    },
    async () => operation.settings(),
  );

  app.patch(
    '/api/settings',
    {
      config: { gate: 'operator' },
      schema: {
        tags: ['operation'],
        summary: 'Change the settings that are named; the others stay',
        body: SettingsPatch,
        response: { 200: Settings, ...errorReplies('bad_request', 'forbidden') },
      },
    },
    async (request) => {
      const names = Object.keys(request.body).join(',');
      await audit.record({ caller: callerOf(request), action: 'settings.change', target: names });
      return operation.changeSettings(request.body);
    },
  );

  app.get(
    '/api/clean-up',
    {
      config: { gate: 'operator' },
      schema: {
        tags: ['operation'],
        summary:
          'Failed machines that are kept and machines that are in no database, with the time when they go',
        response: { 200: CleanUp, ...errorReplies('forbidden') },
      },
    },
    async () => operation.cleanUp(),
  );
}
