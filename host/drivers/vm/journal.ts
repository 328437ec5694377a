/**
 * The guest's journal: how its journald keeps it, and how the host reads it when the guest cannot be asked any more. The disk of a
 * guest is never mounted here: e2fsprogs read it as its owner, who may do nothing else, and the files are read by us.
 */
import { chownSync, closeSync, openSync, readSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { journalText } from '../../evidence/journal.ts';
import { run, unprivileged } from '../../system/command.ts';
import { diskOwner, diskPath } from './disk.ts';
import type { TarFile } from './tar.ts';

/** Small, and without work that an emulated processor would feel: each sync takes the file out of use and back. */
const JOURNALD = `[Journal]
Storage=persistent
SplitMode=none
Compress=no
Seal=no
SystemMaxUse=8M
SystemMaxFileSize=2M
RuntimeMaxUse=8M
SyncIntervalSec=5s
RateLimitIntervalSec=30s
RateLimitBurst=2000
MaxLevelStore=info
LineMax=8K
ForwardToSyslog=no
ForwardToWall=no
`;

/** Files below /run. `flushed` says that the disk is there: nothing is kept in memory first. */
export const journaldFiles = (): TarFile[] => [
  { path: 'systemd/journald.conf.d/polydev.conf', mode: 0o644, text: JOURNALD },
  { path: 'systemd/journal/flushed', mode: 0o644, text: '' },
];

/** Where `images/vm/init` puts it on the private disk. */
const FOLDER = '/journal';
const MAX_FOLDERS = 4;
const MAX_FILES = 8;
const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MOST = { entries: 3_000, characters: 512 * 1024 };
const TIMEOUT_MS = 10_000;
/** Of the owner's programs: seconds of processor, bytes of memory, bytes of a file. */
const BOUNDS = ['prlimit', '--cpu=10', `--as=${1024 ** 3}`, `--fsize=${MAX_FILE_BYTES}`, '--core=0', '--'];
/** As a child sees the disk, its first further descriptor. */
const DISK = '/dev/fd/3';

/** `ls -p` of debugfs: /inode/mode/uid/gid/name/size/ */
const LISTED = /^\/(\d+)\/(\d{6})\/\d+\/\d+\/([^/]+)\/(\d*)\/$/;

/**
 * The journal on the private disk in `folder`, newest lines last, redacted, with a first line that says where it is from. `ended`:
 * nothing of the guest runs, so that what its file system had begun may be completed first, as the next mount would.
 * `open`: for a disk that is not one file. Throws an Error that says why there is nothing.
 */
export async function journalOnDisk(
  folder: string,
  ended: boolean,
  open: (folder: string) => number | Promise<number> = (of) => openSync(diskPath(of), 'r'),
): Promise<string> {
  const owner = diskOwner(folder);
  if (owner === undefined) throw new Error('there is no private disk');
  const disk = await open(folder);
  try {
    const as = [...BOUNDS, ...unprivileged(owner)];
    const features = await run([...as, 'dumpe2fs', '-h', DISK], { timeoutMs: TIMEOUT_MS, inherit: [disk] });
    if (ended && /^Filesystem features:.*\bneeds_recovery\b/m.test(features)) {
      const argv = [...BOUNDS.filter((bound) => !bound.startsWith('--fsize')), ...unprivileged(owner)];
      // It ends with 1 when it did something; what is on the disk afterwards counts.
      await run([...argv, 'e2fsck', '-p', '-E', 'journal_only', DISK], {
        timeoutMs: TIMEOUT_MS,
        inherit: [disk],
      }).catch(() => undefined);
    }
    const ask = (commands: readonly string[], more: readonly number[] = []): Promise<string> =>
      run([...as, 'debugfs', '-f', '-', DISK], {
        input: `${commands.join('\n')}\n`,
        timeoutMs: TIMEOUT_MS,
        inherit: [disk, ...more],
      });
    const inodes = await findFiles(ask);
    if (inodes.length === 0)
      throw new Error('none is on the disk: the guest did not come that far, or had not written it yet');
    const text = journalText(await dump(folder, owner, inodes, ask), MOST);
    if (text === '') throw new Error('the journal on the disk has no entry that can be read');
    const state = ended ? 'has ended' : 'does not answer';
    return `-- From the disk of a guest that ${state}: its last seconds may be missing. --\n${text}`;
  } finally {
    closeSync(disk);
  }
}

type Ask = (commands: readonly string[], more?: readonly number[]) => Promise<string>;

const listing = (said: string): { inode: number; folder: boolean; name: string }[] =>
  said.split('\n').flatMap((line) => {
    const [, inode, mode, name] = LISTED.exec(line.trim()) ?? [];
    if (inode === undefined || mode === undefined || name === undefined) return [];
    return [{ inode: Number(inode), folder: mode.startsWith('04'), name }];
  });

/** Inodes of the newest files of all machine ids: the one that is written, and those that were full. */
async function findFiles(ask: Ask): Promise<number[]> {
  const ids = listing(await ask([`ls -p ${FOLDER}`])).filter(
    ({ folder, name }) => folder && /^[0-9a-f]{32}$/.test(name),
  );
  if (ids.length === 0) return [];
  const commands = ids.slice(-MAX_FOLDERS).map(({ inode }) => `ls -p <${inode}>`);
  // system@<id>-<number>-<time of the first entry>.journal; without the time it is the one that is written.
  const time = (name: string): string => /-([0-9a-f]{16})\.journal/.exec(name)?.[1] ?? 'z';
  return listing(await ask(commands))
    .filter(({ folder, name }) => !folder && /^system[@0-9a-f-]*\.journal~?$/.test(name))
    .sort((a, b) => (time(a.name) < time(b.name) ? 1 : -1))
    .slice(0, MAX_FILES)
    .map(({ inode }) => inode);
}

/** The bytes of files, by way of files of ours that nobody else can open. */
async function dump(folder: string, owner: number, inodes: readonly number[], ask: Ask): Promise<Buffer[]> {
  using undo = new DisposableStack();
  const copies = inodes.map((inode) => {
    const path = join(folder, `.journal-${inode}.tmp`);
    rmSync(path, { force: true });
    const copy = openSync(path, 'wx+', 0o600);
    undo.defer(() => closeSync(copy));
    chownSync(path, owner, owner);
    rmSync(path);
    return copy;
  });
  await ask(
    inodes.map((inode, index) => `dump <${inode}> /dev/fd/${4 + index}`),
    copies,
  );
  return copies.map((copy) => {
    const bytes = Buffer.alloc(MAX_FILE_BYTES);
    return bytes.subarray(0, readSync(copy, bytes, 0, bytes.length, 0));
  });
}
