/** The folder a Firecracker lives in: nothing but its own files, all of them under fixed names. */
import { chownSync, closeSync, constants, fstatSync, linkSync, openSync, writeFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { basename, join } from 'node:path';
import type { MachineId } from '../../../protocol/ids.ts';
import { bindFolder, bindReadOnly, makePrivate, unmount } from '../../system/syscalls.ts';

/** Paths as Firecracker sees them. */
export const IN_JAIL = {
  kernel: '/kernel',
  initrd: '/initrd',
  layer: (index: number): string => `/layer${index}`,
  disk: '/disk',
  config: '/config',
  api: '/api.sock',
  vsock: '/vsock.sock',
  log: '/log',
  metrics: '/metrics',
  memory: '/memory',
  state: '/state',
  /** What a copy begins with is not where it is saved itself one day. */
  templateMemory: '/template-memory',
  templateState: '/template-state',
} as const;

/** Firecracker allows letters, digits and hyphens in an id. */
export const jailId = (id: MachineId | 'probe'): string => id.replaceAll('_', '-');

/** Where the jailer puts the root of a jail below `base`. */
export const jailRoot = (base: string, firecracker: string, id: string): string =>
  join(base, basename(firecracker), id, 'root');

export interface JailFiles {
  /** Read-only files from anywhere: path inside to path on the host. */
  shared: Readonly<Record<string, string>>;
  /** Files of the same file system that the machine owns: path inside to path on the host. */
  owned: Readonly<Record<string, string>>;
  /** Files that are made for it: path inside to content. */
  made: Readonly<Record<string, Buffer>>;
}

/**
 * Fills the jail at `root` for the user `owner`. The shared files are mounts; disposing takes all mounts away, which the running
 * hypervisor does not notice: it has its own mounts, and has opened everything.
 */
export async function fillJail(root: string, owner: number, files: JailFiles): Promise<Disposable> {
  await mkdir(root, { recursive: true, mode: 0o711 });
  const undo = new DisposableStack();
  try {
    // Before the mount: links stay within one.
    for (const [inside, outside] of Object.entries(files.owned)) linkSync(outside, join(root, inside));
    for (const [inside, content] of Object.entries(files.made)) {
      await writeFile(join(root, inside), content, { mode: 0o600, flag: 'wx' });
      chownSync(join(root, inside), owner, owner);
    }
    // A mount of its own that passes nothing on: what is taken away here stays in the hypervisor's view.
    bindFolder(root, root);
    undo.defer(() => unmount(root));
    makePrivate(root);
    for (const [inside, outside] of Object.entries(files.shared)) {
      writeFileSync(join(root, inside), '', { mode: 0o400, flag: 'wx' });
      bindReadOnly(outside, join(root, inside));
    }
    return undo;
  } catch (error) {
    undo.dispose();
    throw error;
  }
}

const O_PATH = 0o10000000;

/**
 * Connects to a unix socket in a jail, whose owner could put anything in its place: only a socket is taken, no link is followed.
 * It also reaches paths that are too long for a socket's address. Throws when there is no socket.
 */
export function connectInJail(path: string): Socket {
  const descriptor = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    if (!fstatSync(descriptor).isSocket()) throw new Error(`${path} is no socket`);
    const socket = createConnection({ path: `/proc/self/fd/${descriptor}` });
    const close = (): void => closeSync(descriptor);
    socket.once('connect', () => {
      socket.off('close', close);
      close();
    });
    socket.once('close', close);
    return socket;
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}
