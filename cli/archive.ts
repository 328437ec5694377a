/** A .tar.gz of files in memory: the POSIX ustar format, regular files only. */
import { gzipSync } from 'node:zlib';

const BLOCK = 512;

export interface ArchivedFile {
  /** Relative, at most 100 bytes. */
  readonly name: string;
  readonly content: Buffer;
  readonly modified: Date;
}

function header({ name, content, modified }: ArchivedFile): Buffer {
  if (Buffer.byteLength(name) > 100) throw new Error(`the name ${name} is too long for an archive`);
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, width: number): void => {
    block.write(`${value.toString(8).padStart(width - 1, '0')}\0`, at, 'latin1');
  };
  block.write(name, 0);
  octal(0o600, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(content.length, 124, 12);
  octal(Math.max(0, Math.floor(modified.getTime() / 1000)), 136, 12);
  block.write('0', 156); // a regular file
  block.write('ustar\x0000', 257, 'latin1');
  // The checksum counts its own field as spaces.
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

export function archive(files: readonly ArchivedFile[]): Buffer {
  const blocks = files.flatMap((file) => [
    header(file),
    file.content,
    Buffer.alloc((BLOCK - (file.content.length % BLOCK)) % BLOCK),
  ]);
  return gzipSync(Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)]));
}
