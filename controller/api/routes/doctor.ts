/** What is the matter with a host: everything that a machine needs, tried now. */
import { z } from 'zod';
import { DoctorReport } from '../../../protocol/doctor.ts';
import type { Api, RouteContext } from '../context.ts';
import { errorReplies } from '../openapi.ts';

export function addDoctorRoutes(app: Api, { services }: RouteContext): void {
  app.get(
    '/api/hosts/:id/doctor',
    {
      config: { gate: 'operator' },
      schema: {
        tags: ['operation'],
        summary: 'Try everything that a machine needs of a host; operators only',
        description:
          'Takes seconds, up to two minutes with a large image on a slow disk. Each check has what was seen and the command that mends it.',
        params: z.object({ id: z.string().min(1).max(64) }),
        response: {
          200: DoctorReport,
          ...errorReplies('bad_request', 'forbidden', 'not_found', 'host_unreachable'),
        },
      },
    },
    async (request) => services.hosts.doctor(request.params.id),
  );
}
