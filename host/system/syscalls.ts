/**
 * host/system/: the operating system below the host service: system calls Node has no binding for, processes with
 * a deadline, and files that survive a crash. Knows nothing of machines.
 */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');
/** A typed view of a C function: koffi itself answers `any`. */
const bind = <F extends (...args: never[]) => number>(definition: string): F =>
  libc.func(definition) as unknown as F;

const cMount = bind<
  (src: string, target: string, type: string | null, flags: number, data: string | null) => number
>('int mount(const char *src, const char *target, const char *type, unsigned long flags, const char *data)');
const cUmount = bind<(target: string, flags: number) => number>('int umount2(const char *target, int flags)');
const cSetns = bind<(fd: number, type: number) => number>('int setns(int fd, int type)');
const cPrctl = bind<(option: number, a: number, b: number, c: number, d: number) => number>(
  'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
);
const cWaitpid = bind<(pid: number, status: Buffer, options: number) => number>(
  'int waitpid(int pid, void *status, int options)',
);
const cMkfifo = bind<(path: string, mode: number) => number>(
  'int mkfifo(const char *path, unsigned int mode)',
);
const cSocket = bind<(domain: number, type: number, protocol: number) => number>(
  'int socket(int domain, int type, int protocol)',
);
const cBind = bind<(fd: number, addr: Buffer, length: number) => number>(
  'int bind(int fd, const void *addr, unsigned int length)',
);
const cListen = bind<(fd: number, backlog: number) => number>('int listen(int fd, int backlog)');
const cIoctl = libc.func('int ioctl(int fd, unsigned long request, ...)') as unknown as (
  ...args: unknown[]
) => number;
const cSyscall = libc.func('long syscall(long n, ...)') as unknown as (...args: unknown[]) => number;

/** A failed system call; `code` is the errno's name, for example EBUSY. */
export class SyscallError extends Error {
  readonly code: string;
  constructor(call: string, detail: string) {
    const number = koffi.errno();
    const code =
      Object.entries(constants.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`;
    super(`${call} ${detail}: ${code}`);
    this.name = 'SyscallError';
    this.code = code;
  }
}

const check = (result: number, call: string, detail: string): number => {
  if (result < 0) throw new SyscallError(call, detail);
  return result;
};

export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
const MS_REMOUNT = 32;
const MS_BIND = 4096;

/** mount(2). Throws SyscallError. */
export function mount(source: string, target: string, type: string, flags: number, data: string): void {
  check(cMount(source, target, type, flags, data), 'mount', `${type} on ${target}`);
}

/** Makes the folder `source` appear at `target` too. */
export function bindFolder(source: string, target: string): void {
  check(cMount(source, target, null, MS_BIND, null), 'mount --bind', `${source} on ${target}`);
}

/** Binds `source` (file or folder) at `target`, read-only. */
export function bindReadOnly(source: string, target: string): void {
  check(cMount(source, target, null, MS_BIND, null), 'mount --bind', `${source} on ${target}`);
  check(
    cMount('none', target, null, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, null),
    'mount --bind -o remount,ro',
    target,
  );
}

/** Passes no mounts below `target` on to other views of it, and takes none from them. */
export function makePrivate(target: string): void {
  const MS_PRIVATE = 1 << 18;
  check(cMount('none', target, null, MS_PRIVATE, null), 'mount --make-private', target);
}

const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

/** Takes away the top mount of `target`, at once even when busy. False when there is none. */
export function unmount(target: string): boolean {
  if (cUmount(target, MNT_DETACH | UMOUNT_NOFOLLOW) === 0) return true;
  const error = new SyscallError('umount2', target);
  if (error.code === 'EINVAL' || error.code === 'ENOENT') return false;
  throw error;
}

const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_MOUNT_SETATTR = 442;
const OPEN_TREE_CLONE = 1;
const O_CLOEXEC = 0o2000000;
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_IDMAP = 0x100000n;

/**
 * Mounts a clone of the mount at `source` on `target` with its owners shifted as the user namespace behind
 * `userNamespaceFd` maps them. Throws SyscallError. Numbers: the kernel's generic table, the same on x86-64 and arm64.
 */
export function mountIdmapped(source: string, target: string, userNamespaceFd: number): void {
  const tree = check(
    cSyscall(
      SYS_OPEN_TREE,
      'int',
      AT_FDCWD,
      'const char*',
      source,
      'unsigned int',
      OPEN_TREE_CLONE | O_CLOEXEC,
    ),
    'open_tree',
    source,
  );
  try {
    // struct mount_attr { u64 attr_set, attr_clr, propagation, userns_fd }
    const attributes = Buffer.alloc(32);
    attributes.writeBigUInt64LE(MOUNT_ATTR_IDMAP, 0);
    attributes.writeBigUInt64LE(BigInt(userNamespaceFd), 24);
    check(
      cSyscall(
        SYS_MOUNT_SETATTR,
        ...['int', tree, 'const char*', '', 'unsigned int', AT_EMPTY_PATH],
        ...['void*', attributes, 'size_t', attributes.length],
      ),
      'mount_setattr',
      source,
    );
    check(
      cSyscall(
        SYS_MOVE_MOUNT,
        ...['int', tree, 'const char*', '', 'int', AT_FDCWD],
        ...['const char*', target, 'unsigned int', MOVE_MOUNT_F_EMPTY_PATH],
      ),
      'move_mount',
      target,
    );
  } finally {
    closeSync(tree);
  }
}

const CLONE_NEWNET = 0x40000000;

/**
 * Runs `work` with this thread inside a network namespace and comes back before it returns. `work` must be
 * synchronous; a child process it starts stays in that namespace. A failed way back ends this process, because
 * everything it would do next would happen in the wrong network.
 */
export function inNetworkNamespace<T>(path: string, work: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  try {
    const away = openSync(path, 'r');
    try {
      check(cSetns(away, CLONE_NEWNET), 'setns', path);
    } finally {
      closeSync(away);
    }
    try {
      return work();
    } finally {
      if (cSetns(home, CLONE_NEWNET) !== 0) {
        process.stderr.write(`cannot return from network namespace ${path}: ending\n`);
        process.abort();
      }
    }
  } finally {
    closeSync(home);
  }
}

/** Makes orphans of our descendants our own children, so that a machine's exit code can be read. */
export function becomeSubreaper(): void {
  const PR_SET_CHILD_SUBREAPER = 36;
  check(cPrctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 'prctl', 'PR_SET_CHILD_SUBREAPER');
}

export interface WaitStatus {
  code: number | null;
  signal: string | null;
}

/** Collects the exit of a child: its status, `running`, or `not_child` when it is none of ours. Never blocks. */
export function waitChild(pid: number): WaitStatus | 'running' | 'not_child' {
  const WNOHANG = 1;
  const raw = Buffer.alloc(4);
  const result = cWaitpid(pid, raw, WNOHANG);
  if (result === 0) return 'running';
  if (result < 0) return 'not_child';
  const status = raw.readInt32LE(0);
  const signal = status & 0x7f;
  if (signal === 0) return { code: (status >> 8) & 0xff, signal: null };
  const name = Object.entries(constants.signals).find(([, value]) => value === signal)?.[0];
  return { code: null, signal: name ?? `signal ${signal}` };
}

/** Makes a named pipe. An existing one is kept. */
export function makeFifo(path: string, mode: number): void {
  if (cMkfifo(path, mode) === 0) return;
  const error = new SyscallError('mkfifo', path);
  if (error.code !== 'EEXIST') throw error;
}

/**
 * A listening unix socket as a plain descriptor, made to be inherited: Node's own servers cannot be handed to a
 * process that is not Node. The caller closes it. Throws SyscallError.
 */
export function listenUnix(path: string, backlog: number): number {
  const AF_UNIX = 1;
  const SOCK_STREAM = 1;
  const bytes = Buffer.from(path);
  // struct sockaddr_un { u16 family, char path[108] }, the path ended by a zero
  if (bytes.length > 107)
    throw new Error(`socket path too long (${bytes.length} bytes, at most 107): ${path}`);
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  const fd = check(cSocket(AF_UNIX, SOCK_STREAM | O_CLOEXEC, 0), 'socket', path);
  try {
    check(cBind(fd, address, address.length), 'bind', path);
    check(cListen(fd, backlog), 'listen', path);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Of a TAP interface that hypervisors misread. */
export const NO_HEADER = 'it lacks the header flag (vnet_hdr) that the hypervisor needs';

/**
 * Makes a TAP interface in the network namespace of the calling thread and opens it: Ethernet frames with the header that
 * carries checksum offload (virtio-net). It goes away with the last copy of the descriptor. Throws SyscallError,
 * or an Error when the interface does not have that header.
 */
export function openTap(name: string): number {
  const TUNSETIFF = 0x400454ca;
  const TUNGETIFF = 0x800454d2;
  const IFF_TAP = 0x0002;
  const IFF_NO_PI = 0x1000;
  const IFF_VNET_HDR = 0x4000;
  // struct ifreq { char name[16]; short flags; ... }, 40 bytes
  const request = Buffer.alloc(40);
  request.write(name, 0, 15);
  request.writeInt16LE(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 16);
  const fd = openSync('/dev/net/tun', 'r+');
  try {
    check(cIoctl(fd, TUNSETIFF, 'void *', request), 'ioctl TUNSETIFF', name);
    // What was asked for is not always what it has.
    check(cIoctl(fd, TUNGETIFF, 'void *', request), 'ioctl TUNGETIFF', name);
    if ((request.readInt16LE(16) & IFF_VNET_HDR) === 0)
      throw new Error(`TAP interface ${name}: ${NO_HEADER}`);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The mount table of this process: mount points and their file system types. */
export function mountPoints(): { target: string; type: string }[] {
  const undoOctal = (text: string): string =>
    text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ');
      const separator = fields.indexOf('-');
      return { target: undoOctal(fields[4] ?? ''), type: fields[separator + 1] ?? '' };
    });
}
