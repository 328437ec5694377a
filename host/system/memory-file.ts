/** Memory as a file without a name: whoever has its descriptor may map it, and once it is sealed nobody can change it. */
import { closeSync, ftruncateSync } from 'node:fs';
import koffi from 'koffi';
import { SyscallError } from './syscalls.ts';

const libc = koffi.load('libc.so.6');
const cMemfdCreate = libc.func('int memfd_create(const char *name, unsigned int flags)') as unknown as (
  name: string,
  flags: number,
) => number;
const cFcntl = libc.func('int fcntl(int fd, int command, ...)') as unknown as (...args: unknown[]) => number;

/** A descriptor of a file of `bytes` zeros, which take no memory until they are written. The caller closes it. Throws SyscallError. */
export function openMemoryFile(name: string, bytes: number): number {
  const MFD_CLOEXEC = 1;
  const MFD_ALLOW_SEALING = 2;
  const fd = cMemfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) throw new SyscallError('memfd_create', name);
  try {
    ftruncateSync(fd, bytes);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** No byte and no size of it changes from now on, by anybody; throws SyscallError with EBUSY while somebody could still write. */
export function sealMemoryFile(fd: number): void {
  const F_ADD_SEALS = 1033;
  const SEAL_SEAL = 1;
  const SEAL_SHRINK = 2;
  const SEAL_GROW = 4;
  const SEAL_WRITE = 8;
  const seals = SEAL_SEAL | SEAL_SHRINK | SEAL_GROW | SEAL_WRITE;
  if (cFcntl(fd, F_ADD_SEALS, 'int', seals) < 0) throw new SyscallError('fcntl F_ADD_SEALS', String(fd));
}
