/** `./polydev evidence ID`: everything that is known of one machine, as one archive with a manifest. */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { Machine } from '../protocol/api.ts';
import { DiagnosisReply } from '../protocol/diagnoses.ts';
import { EvidenceFile } from '../protocol/host.ts';
import type { Api } from './api.ts';
import { type ArchivedFile, archive } from './archive.ts';
import { formatBytes, type Output } from './output.ts';

/** Writes the archive (mode 0600) and prints its path. */
export async function writeEvidence(
  api: Api,
  id: string,
  options: { out: string | undefined },
  output: Output,
): Promise<void> {
  const machine = await api.request('GET', `/api/machines/${id}`, Machine);
  const diagnosis = await api.request('GET', `/api/machines/${id}/diagnosis`, DiagnosisReply);
  const listed = await api.request(
    'GET',
    `/api/machines/${id}/evidence`,
    z.object({ files: z.array(EvidenceFile) }),
  );
  const files: ArchivedFile[] = [];
  for (const { name, modified } of listed.files) {
    const content = await api.bytes(`/api/machines/${id}/evidence/${encodeURIComponent(name)}`);
    files.push({ name, content, modified: new Date(modified) });
  }
  const now = new Date();
  const manifest = {
    format: 1,
    made: now.toISOString(),
    machine,
    ...diagnosis,
    files: files.map(({ name, content, modified }) => ({
      name,
      bytes: content.length,
      sha256: createHash('sha256').update(content).digest('hex'),
      modified: modified.toISOString(),
    })),
  };
  const first = {
    name: 'manifest.json',
    content: Buffer.from(JSON.stringify(manifest, null, 2)),
    modified: now,
  };
  const within = [first, ...files].map((file) => ({ ...file, name: `${id}/${file.name}` }));
  const bytes = archive(within);
  const path = options.out ?? `${id}.tar.gz`;
  await writeFile(path, bytes, { mode: 0o600 });
  output.say(`${files.length} files, ${formatBytes(bytes.length)}`);
  output.result(path);
}
