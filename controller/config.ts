/** The controller's settings: one JSON file, named on the command line, read once. */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { PolydevError } from '../protocol/errors.ts';
import { SettingsPatch } from '../protocol/settings.ts';

const Path = z.string().startsWith('/', 'must be an absolute path');
const VariableName = z.string().regex(/^[A-Z_][A-Z0-9_]*$/, 'must be the name of an environment variable');

export const Config = z
  .strictObject({
    port: z.number().int().min(0).max(65_535),
    /** The address to listen on, for example 127.0.0.1. */
    bind: z.string().min(1),
    /** Where people reach it when something stands in front, for example https://polydev.example.org. */
    publicUrl: z.url({ protocol: /^https?$/ }).optional(),
    databaseUrl: z.string().min(1),
    hostSocket: Path,
    /** Exactly one of these three says where the master key comes from. */
    masterKeyFile: Path.optional(),
    masterKeyEnv: VariableName.optional(),
    passphraseEnv: VariableName.optional(),
    dataDir: Path,
    webDist: Path,
    /** Marks what belongs to this instance. */
    instance: z.string().regex(/^[a-z0-9-]{1,32}$/),
    allowTestRealm: z.boolean(),
    logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error']),
    /** Where an operator's API key is written, mode 0600, at the first start. */
    apiKeyFile: Path,
    /** Changed at this start, and kept in the database from then on. */
    settings: SettingsPatch.optional(),
    /** The controller needs no root and refuses it unless this is set. */
    allowRoot: z.boolean().optional(),
  })
  .refine(
    ({ masterKeyFile, masterKeyEnv, passphraseEnv }) =>
      [masterKeyFile, masterKeyEnv, passphraseEnv].filter((key) => key !== undefined).length === 1,
    'give exactly one of masterKeyFile, masterKeyEnv and passphraseEnv',
  );
export type Config = z.infer<typeof Config>;

/** @throws PolydevError configuration_invalid naming the file or the settings that are wrong, never their values */
export async function readConfig(file: string): Promise<Config> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    // The text of a JSON error quotes the file, which holds the database's password.
    const why = error instanceof SyntaxError ? 'is not JSON' : 'cannot be read';
    throw new PolydevError('configuration_invalid', `the configuration ${file} ${why}`);
  }
  const result = Config.safeParse(parsed);
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) => `${path.join('.') || 'file'}: ${message}`);
  throw new PolydevError('configuration_invalid', `${file}: ${problems.join('; ')}`);
}
