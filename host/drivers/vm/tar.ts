/** A tar archive in memory (POSIX ustar), for the config drive: read with any tar, no file system to mount. */

export interface TarFile {
  /** At most 100 bytes, without a leading slash. */
  readonly path: string;
  readonly mode: number;
  readonly text: string;
}

const BLOCK = 512;
const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, '0')}\0`;

function entry(path: string, mode: number, type: '0' | '5', content: Buffer): Buffer {
  if (Buffer.byteLength(path) > 100) throw new Error(`too long for a tar archive: ${path}`);
  const header = Buffer.alloc(BLOCK);
  header.write(path, 0);
  header.write(octal(mode, 8), 100);
  header.write(octal(0, 8), 108);
  header.write(octal(0, 8), 116);
  header.write(octal(content.length, 12), 124);
  header.write(octal(0, 12), 136);
  header.write(' '.repeat(8), 148);
  header.write(type, 156);
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return Buffer.concat([header, content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK)]);
}

/** The archive with the folders above its files (mode 755), all owned by root, and the two empty blocks of its end. */
export function tar(files: readonly TarFile[]): Buffer {
  const folders = new Set(
    files.flatMap(({ path }) => {
      const parts = path.split('/').slice(0, -1);
      return parts.map((_, index) => `${parts.slice(0, index + 1).join('/')}/`);
    }),
  );
  return Buffer.concat([
    ...[...folders].sort().map((folder) => entry(folder, 0o755, '5', Buffer.alloc(0))),
    ...files.map(({ path, mode, text }) => entry(path, mode, '0', Buffer.from(text))),
    Buffer.alloc(2 * BLOCK),
  ]);
}
