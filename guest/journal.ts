/** The end of systemd's journal, as the host keeps it of a virtual machine. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { PolydevError } from '../protocol/errors.ts';
import { redact } from '../protocol/redact.ts';

const MAX_LINES = 3_000;
const MAX_CHARACTERS = 512 * 1024;
const DEADLINE_MS = 30_000;

/**
 * The last lines, oldest first, redacted, at most half a million characters. A guest that was cloned has files under the id of
 * the one that it was cloned from, too: all are read. Throws `internal` with what the program said.
 */
export async function readJournal(signal: AbortSignal): Promise<string> {
  const argv = ['--directory=/var/log/journal', '--output=short-precise', '--no-pager', '--quiet'];
  const child = spawn('journalctl', [...argv, `--lines=${MAX_LINES}`], {
    stdio: ['ignore', 'pipe', 'pipe'],
    signal: AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]),
    env: { PATH: process.env.PATH, LANG: 'C.UTF-8', TZ: 'UTC' },
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-500);
  });
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  ended.catch(() => undefined);
  const lines: string[] = [];
  let characters = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    const text = redact(line);
    lines.push(text);
    characters += text.length + 1;
    while (characters > MAX_CHARACTERS) characters -= (lines.shift() ?? '').length + 1;
  }
  try {
    const [code, by] = await ended;
    if (code !== 0) throw new Error(said.trim() || `it ended with ${code ?? by}`);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new PolydevError('internal', `journalctl: ${why}`, { cause: error });
  }
  return lines.map((line) => `${line}\n`).join('');
}
