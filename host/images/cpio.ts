/** Writes the archive a kernel unpacks into its first file system: cpio, format "newc" (see the kernel's buffer-format text). */

export interface CpioEntry {
  /** Without a leading slash; parents come first. */
  readonly path: string;
  /** Type and permission bits as in st_mode. */
  readonly mode: number;
  readonly content: Uint8Array;
}

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

const bytes = (text: string): Uint8Array => Buffer.from(text);
export const cpioFolder = (path: string): CpioEntry => ({
  path,
  mode: S_IFDIR | 0o755,
  content: new Uint8Array(),
});
export const cpioFile = (path: string, content: Uint8Array, mode = 0o644): CpioEntry => ({
  path,
  mode: S_IFREG | mode,
  content,
});
export const cpioLink = (path: string, target: string): CpioEntry => ({
  path,
  mode: S_IFLNK | 0o777,
  content: bytes(target),
});

const pad4 = (length: number): Uint8Array => new Uint8Array((4 - (length % 4)) % 4);

function encode({ path, mode, content }: CpioEntry, inode: number): Buffer {
  const name = bytes(`${path}\0`);
  // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = bytes(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  return Buffer.concat([header, name, pad4(header.length + name.length), content, pad4(content.length)]);
}

/** The archive: owner root, time 0, in the order given; the same entries give the same bytes. */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const all = [...entries, { path: 'TRAILER!!!', mode: 0, content: new Uint8Array() }];
  return Buffer.concat(all.map((entry, index) => encode(entry, index + 1)));
}
