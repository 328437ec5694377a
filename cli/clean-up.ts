/** `./polydev settings` and `./polydev clean-up`: what an operator changes, and what stays for a while because of it. */
import { CleanUp } from '../protocol/api.ts';
import { PolydevError } from '../protocol/errors.ts';
import { Settings, SettingsPatch } from '../protocol/settings.ts';
import type { Api } from './api.ts';
import { type Output, table } from './output.ts';

/** `name=value` as JSON where it is (numbers, true and false). Throws `bad_request` naming what is wrong. */
export function parseChanges(changes: readonly string[]): SettingsPatch {
  const entries = changes.map((change) => {
    const at = change.indexOf('=');
    if (at < 1) throw new PolydevError('bad_request', `${change}: write name=value`);
    const text = change.slice(at + 1);
    try {
      return [change.slice(0, at), JSON.parse(text) as unknown] as const;
    } catch {
      return [change.slice(0, at), text] as const;
    }
  });
  const parsed = SettingsPatch.safeParse(Object.fromEntries(entries));
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(
    ({ path, message }) => `${path.join('.') || 'settings'}: ${message}`,
  );
  throw new PolydevError('bad_request', problems.join('; '));
}

/** Shows the settings, after changing those that are named. */
export async function settingsCommand(
  api: Api,
  changes: readonly string[],
  options: { json: boolean },
  output: Output,
): Promise<void> {
  const settings =
    changes.length === 0
      ? await api.request('GET', '/api/settings', Settings)
      : await api.request('PATCH', '/api/settings', Settings, parseChanges(changes));
  if (options.json) return output.result(JSON.stringify(settings));
  output.result(
    table(
      ['SETTING', 'VALUE'],
      Object.entries(settings).map(([name, value]) => [name, String(value)]),
    ),
  );
}

/** Kept machines and machines that nobody knows, with the time when they go. */
export async function showCleanUp(api: Api, options: { json: boolean }, output: Output): Promise<void> {
  const cleanUp = await api.request('GET', '/api/clean-up', CleanUp);
  if (options.json) return output.result(JSON.stringify(cleanUp));
  const rows = [
    ...cleanUp.kept.map((m) => [m.id, m.error?.code ?? 'failed', m.userId, m.removeAt ?? '']),
    ...cleanUp.orphans.map(({ id, removeAt }) => [id, 'in no database', '', removeAt]),
  ];
  output.result(rows.length === 0 ? 'nothing stays' : table(['MACHINE', 'WHY', 'USER', 'GOES'], rows));
}
