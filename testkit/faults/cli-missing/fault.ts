import type { Fault } from '../fault.ts';

export const cliMissing: Fault = {
  name: 'cli-missing',
  expect: 'cli_missing',
  before: async ({ disk }) => disk.remove('/usr/local/bin/codex'),
};
