/**
 * Static verification: an image becomes current only after its layers, stacked as a driver would, pass every check.
 * The stack is mounted in namespaces of a child process (mounts, network, pids), so nothing stays behind and nothing
 * that runs can reach out; each failed check names the file and what to do.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { PolydevError } from '../../protocol/errors.ts';
import { sha256File } from './identity.ts';
import type { UnverifiedImage } from './manifest.ts';
import { requireRoot } from './packages.ts';
import { run } from './run.ts';

/** One thing that is wrong with an image. */
export const Finding = z.object({
  check: z.string(),
  file: z.string(),
  problem: z.string(),
  remedy: z.string(),
});
export type Finding = z.infer<typeof Finding>;

/** What the child process is told; `layers` bottom to top, absolute. */
export const VerifyRequest = z.object({ layers: z.array(z.string()).min(1), scratch: z.string() });

/** What the child process prints as its last line. */
export const VerifyReply = z.object({ checks: z.number().int().positive(), findings: z.array(Finding) });

/** Text of a finding, for logs and errors. */
export const describeFinding = (f: Finding): string => `${f.check}: ${f.file}: ${f.problem}; ${f.remedy}`;

/**
 * Verifies an image. Needs root. Resolves with the number of checks that passed; throws
 * `image_verification_failed` with one line per failed check, `not_root`.
 */
export async function verifyImage(
  image: UnverifiedImage,
  options: { cacheDir: string; signal: AbortSignal; log?: (line: string) => void },
): Promise<number> {
  const { cacheDir, signal, log = () => undefined } = options;
  requireRoot('verifying an image mounts its layers');
  const findings: Finding[] = [];
  for (const layer of image.layers) {
    const file = path.join(cacheDir, layer.file);
    if ((await sha256File(file, signal)) !== layer.sha256) {
      findings.push({
        check: 'layer bytes',
        file,
        problem: 'the content is not what was built',
        remedy: 'delete it and build again',
      });
    }
  }
  if (findings.length === 0) {
    const inside = fileURLToPath(new URL('./verify-inside.ts', import.meta.url));
    const request: z.infer<typeof VerifyRequest> = {
      layers: image.layers.map((layer) => path.join(cacheDir, layer.file)),
      scratch: '/mnt',
    };
    const output = await run(
      [
        'unshare',
        '--mount',
        '--propagation=private',
        '--net',
        '--ipc',
        '--uts',
        '--pid',
        '--fork',
        '--kill-child=SIGKILL',
        '--mount-proc',
        process.execPath,
        '--no-warnings',
        inside,
        JSON.stringify(request),
      ],
      { what: `verifying image ${image.id}`, deadline: 300_000, signal, onLine: log },
    );
    const reply = VerifyReply.parse(JSON.parse(output.at(-1) ?? ''));
    if (reply.findings.length === 0) return reply.checks + image.layers.length;
    findings.push(...reply.findings);
  }
  throw new PolydevError(
    'image_verification_failed',
    `image ${image.id}: ${findings.length} checks failed; first: ${findings[0]?.file}: ${findings[0]?.problem}`,
    {
      lines: findings.map(describeFinding),
    },
  );
}

/** Reads a file of a mounted stack as text; undefined when it is not there. */
export const readText = (file: string): Promise<string | undefined> =>
  readFile(file, 'utf8').catch(() => undefined);
