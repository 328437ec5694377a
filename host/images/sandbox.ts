/**
 * Where a build runs what it did not write: maintainer scripts, npm and packers. Their root is a range of ids that belongs to
 * nobody on this host (or, when an ordinary user builds, the user's subordinate ids), in namespaces of their own, so a script
 * that goes wrong reaches the tree it was given and nothing else. Where the host has no user namespaces, root runs it, and the log says why.
 */
import { constants } from 'node:fs';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { PolydevError } from '../../protocol/errors.ts';
import { claimIds, ID_RANGE, idLeasesIn, releaseIds, SHARED_FOLDER } from '../system/ids.ts';
import { closeUserNamespace, openSubordinateNamespace, openUserNamespace } from '../system/userns.ts';
import { mountPointsBelow } from './mounts.ts';
import { type RunOptions, run } from './run.ts';
import { subordinateIds } from './subordinate.ts';

/** Runs one command to its end and gives its stdout lines; see `run`. */
export type Run = (argv: readonly [string, ...string[]], options: RunOptions) => Promise<string[]>;

export interface Sandbox {
  /** Whether commands run as nobody of this host. */
  readonly confined: boolean;
  /** Runs a command as the sandbox's root. What it starts ends with it. */
  readonly run: Run;
  /** Makes files and folders those of the sandbox's root; with `recursive` everything below, links not followed. */
  give(paths: readonly string[], options?: { recursive?: boolean }): Promise<void>;
  /** Makes them those of the caller again. */
  take(paths: readonly string[]): Promise<void>;
  /** Removes a tree, whoever owns what is in it; refuses while something is mounted below it. */
  remove(directory: string): Promise<void>;
}

/** Namespaces of their own for commands: mounts made inside end with them, and so does every process. */
const PRIVATE = [
  ...['unshare', '--mount', '--propagation=private', '--ipc', '--pid', '--fork', '--kill-child=SIGKILL'],
  ...['--mount-proc', '--'],
];

/** Milliseconds for changing owners and removing trees; not cut short by an abort, which is when they matter. */
const CLEANING = 120_000;

const isRoot = (): boolean => process.getuid?.() === 0;

const cleaning = (what: string): RunOptions => ({
  what,
  deadline: CLEANING,
  signal: AbortSignal.timeout(CLEANING),
});

const chown = (owner: number, paths: readonly string[], recursive = false): [string, ...string[]] => [
  'chown',
  ...['--no-dereference', ...(recursive ? ['--recursive'] : []), '--', `${owner}:${owner}`, ...paths],
];

/** Refuses while something is mounted below `directory`, so that removing it never follows a mount. */
async function refuseMounts(directory: string): Promise<void> {
  const mounted = await mountPointsBelow(directory);
  if (mounted.length > 0) {
    throw new PolydevError(
      'image_build_failed',
      `${mounted[0]} is still mounted; unmount it and build again`,
    );
  }
}

/** Removes a staging directory; refuses while something is mounted below it. Processes that were killed may still be ending in it. */
export async function removeTree(directory: string): Promise<void> {
  await refuseMounts(directory);
  await rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
}

const takeAsRoot = async (paths: readonly string[]): Promise<void> => {
  if (paths.length > 0) await run(chown(0, paths), cleaning('taking files back'));
};

/** No confinement: commands run as the caller; as root in namespaces of their own, so that nothing they mount stays. */
export const unconfined: Sandbox = {
  confined: false,
  run: (argv, options) => run(argv, isRoot() ? { ...options, within: PRIVATE } : options),
  give: () => Promise.resolve(),
  // Of a confined build that was killed.
  take: (paths) => (isRoot() ? takeAsRoot(paths) : Promise.resolve()),
  remove: removeTree,
};

/** Commands in the user namespace open at `descriptor`. A kill is no harm to anything outside, so an abort does not wait. */
function runIn(descriptor: number): Run {
  const within = [
    'nsenter',
    `--user=/proc/${process.pid}/fd/${descriptor}`,
    '--',
    // Entering a user namespace drops the wish to be killed together with the parent.
    ...['setpriv', '--pdeathsig', 'KILL', '--'],
    ...PRIVATE,
  ];
  return (argv, options) => run(argv, { ...options, within, atOnce: true });
}

const ofRoot = (descriptor: number, firstId: number): Sandbox => ({
  confined: true,
  run: runIn(descriptor),
  give: async (paths, { recursive = false } = {}) => {
    await run(chown(firstId, paths, recursive), cleaning('handing files over'));
  },
  take: takeAsRoot,
  remove: removeTree,
});

function ofUser(descriptor: number): Sandbox {
  const inside = runIn(descriptor);
  return {
    confined: true,
    run: inside,
    give: async (paths, { recursive = false } = {}) => {
      await inside(chown(0, paths, recursive), cleaning('handing files over'));
    },
    take: async (paths) => {
      if (paths.length > 0) await inside(chown(ID_RANGE, paths), cleaning('taking files back'));
    },
    remove: async (directory) => {
      await refuseMounts(directory);
      await inside(['rm', '-rf', '--one-file-system', '--', directory], cleaning(`removing ${directory}`));
    },
  };
}

/** What says most of why a command failed: a refusal among its last lines, else the last of them. */
function reasonOf(error: unknown): string {
  const { message, lines } = PolydevError.from(error);
  const said = lines.find((line) => /denied|not permitted|EACCES|EPERM/.test(line)) ?? lines.at(-1);
  return said === undefined ? message : `${message}: ${said}`;
}

/**
 * Opens the sandbox of a build that stages in `folder` (made when it is not there); closing it is left to the caller. As root it falls
 * back to `unconfined`, telling `onFallback` why, once. Throws `not_root` to an ordinary user for whom it cannot be opened.
 */
export async function openSandbox(options: {
  folder: string;
  signal: AbortSignal;
  /** Gets a whole sentence. */
  onFallback: (why: string) => void;
  /** Where id ranges are claimed; default: where all instances of this host do. */
  sharedFolder?: string;
}): Promise<Sandbox & AsyncDisposable> {
  const { folder, signal, onFallback, sharedFolder = SHARED_FOLDER } = options;
  await using undo = new AsyncDisposableStack();
  try {
    await mkdir(folder, { recursive: true });
    await chmod(folder, 0o755);
    const descriptor = await openIds(folder, sharedFolder, undo, signal);
    const sandbox =
      descriptor.firstId === undefined ? ofUser(descriptor.fd) : ofRoot(descriptor.fd, descriptor.firstId);
    await tryOut(sandbox, folder, signal);
    const opened = undo.move();
    return { ...sandbox, [Symbol.asyncDispose]: () => opened.disposeAsync() };
  } catch (error) {
    signal.throwIfAborted();
    if (isRoot()) {
      onFallback(
        `maintainer scripts and npm run as root of this host, for want of a user namespace: ${reasonOf(error)}`,
      );
      // What was opened is closed on the way out.
      return { ...unconfined, [Symbol.asyncDispose]: () => Promise.resolve() };
    }
    if (PolydevError.from(error).code === 'not_root') throw error;
    throw new PolydevError(
      'not_root',
      `building an image without root needs a user namespace, which does not work here: ${reasonOf(error)}`,
      { cause: error },
    );
  }
}

async function openIds(
  folder: string,
  sharedFolder: string,
  undo: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<{ fd: number; firstId?: number }> {
  const keep = (fd: number): number => {
    undo.defer(() => closeUserNamespace(fd));
    return fd;
  };
  if (!isRoot()) {
    const { username, uid, gid } = userInfo();
    const ids = await subordinateIds(username, uid);
    return { fd: keep(await openSubordinateNamespace(ids, { uid, gid }, signal)) };
  }
  const leases = idLeasesIn(sharedFolder);
  const firstId = await claimIds(leases, folder, undefined);
  undo.defer(() => releaseIds(leases, folder));
  return { fd: keep(await openUserNamespace(firstId, signal)), firstId };
}

/** Proves what every step of a build needs: namespaces, this Node, and the way to the staging folder. */
async function tryOut(sandbox: Sandbox, folder: string, signal: AbortSignal): Promise<void> {
  const reach = `require('node:fs').accessSync(process.argv[1], ${constants.R_OK | constants.X_OK})`;
  await sandbox.run([process.execPath, '--eval', reach, folder], {
    what: `a user namespace, and the way to ${folder} and to Node in it`,
    deadline: 20_000,
    signal,
    cwd: '/',
  });
}
