/** The unprivileged system account that the database and the controller run as. */
import { execa } from 'execa';
import { PolydevError } from '../protocol/errors.ts';

export interface Account {
  readonly uid: number;
  readonly gid: number;
}

const NAME = 'polydev';

/** Finds or makes the system user `polydev` (no home, no shell, no password). Needs root to make it. */
export async function ensureAccount(signal: AbortSignal): Promise<Account> {
  const existing = await findAccount(signal);
  if (existing !== undefined) return existing;
  const made = await execa(
    'useradd',
    ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', NAME],
    {
      reject: false,
      all: true,
      timeout: 30_000,
      cancelSignal: signal,
    },
  );
  const account = await findAccount(signal);
  if (account === undefined) {
    throw new PolydevError(
      'configuration_invalid',
      `the system user "${NAME}" could not be made: ${made.all ?? ''}`,
    );
  }
  return account;
}

/** The user, if it was made. */
export async function findAccount(signal: AbortSignal): Promise<Account | undefined> {
  const found = await execa('getent', ['passwd', NAME], {
    reject: false,
    timeout: 10_000,
    cancelSignal: signal,
  });
  const fields = found.stdout.split(':');
  return found.exitCode === 0 ? { uid: Number(fields[2]), gid: Number(fields[3]) } : undefined;
}
