/**
 * The uncompressed kernel (ELF) inside a bzImage: what a hypervisor without a decompressor starts. Debian's cloud kernel is
 * compressed with LZ4, for which Node has no function. Formats: the kernel's Documentation/arch/x86/boot.rst, lz4_Block_format.md.
 */
import { existsSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { PolydevError } from '../../protocol/errors.ts';

const HEADER_MAGIC = 0x53726448; // "HdrS"
const LZ4_LEGACY_MAGIC = 0x184c2102;
const LZ4_LEGACY_BLOCK = 8 * 1024 * 1024;
const ELF_MAGIC = 0x464c457f;

const failed = (why: string): PolydevError =>
  new PolydevError('image_build_failed', `the kernel cannot be unpacked: ${why}`);

/** Decompresses one LZ4 block to `out` from `at` on; where it ended. Matches never reach beyond what this block wrote. */
function lz4Block(input: Buffer, out: Buffer, at: number): number {
  let from = 0;
  let to = at;
  const length = (nibble: number): number => {
    let total = nibble;
    for (let byte = nibble === 15 ? 255 : 0; byte === 255; total += byte) byte = input[from++] ?? 0;
    return total;
  };
  while (from < input.length) {
    const token = input[from++] ?? 0;
    const literals = length(token >> 4);
    if (from + literals > input.length || to + literals > out.length) throw failed('a block is damaged');
    input.copy(out, to, from, from + literals);
    from += literals;
    to += literals;
    if (from >= input.length) break; // the last sequence has no match
    const offset = input.readUInt16LE(from);
    from += 2;
    const match = length(token & 15) + 4;
    if (offset === 0 || to - offset < at || to + match > out.length) throw failed('a block is damaged');
    // Byte by byte where the match overlaps what it makes.
    if (offset >= match) out.copy(out, to, to - offset, to - offset + match);
    else for (let i = 0; i < match; i++) out[to + i] = out[to + i - offset] ?? 0;
    to += match;
  }
  return to;
}

/** The ELF file in a bzImage that is compressed with LZ4. Throws `image_build_failed`. */
export function vmlinuxOf(image: Buffer): Buffer {
  if (image.length < 0x260 || image.readUInt32LE(0x202) !== HEADER_MAGIC) throw failed('it is no bzImage');
  const setupSectors = image[0x1f1] || 4;
  const start = (setupSectors + 1) * 512 + image.readUInt32LE(0x248);
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c));
  if (payload.length < 8 || payload.readUInt32LE(0) !== LZ4_LEGACY_MAGIC) {
    throw failed('it is not compressed with LZ4');
  }
  // The linker appends the length of what was compressed.
  const size = payload.readUInt32LE(payload.length - 4);
  const out = Buffer.alloc(size);
  let to = 0;
  for (let from = 4; from + 4 < payload.length && to < size; ) {
    const compressed = payload.readUInt32LE(from);
    from += 4;
    to = lz4Block(payload.subarray(from, from + compressed), out.subarray(0, to + LZ4_LEGACY_BLOCK), to);
    from += compressed;
  }
  if (to !== size || out.readUInt32LE(0) !== ELF_MAGIC) throw failed('what is inside is no kernel');
  return out;
}

/** Path of the uncompressed kernel beside the one at `kernel`; unpacked (about 50 MB) when it is not there yet. */
export async function ensureVmlinux(kernel: string): Promise<string> {
  const file = `${kernel}.elf`;
  if (existsSync(file)) return file;
  const draft = `${file}.${process.pid}.tmp`;
  await writeFile(draft, vmlinuxOf(await readFile(kernel)), { mode: 0o644, flush: true });
  await rename(draft, file);
  return file;
}
