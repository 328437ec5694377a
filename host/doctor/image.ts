/** The golden image, and the kernel of virtual machines. */
import { open } from 'node:fs/promises';
import { imageFacts } from '../evidence/facts.ts';
import { openImageStore } from '../images/store.ts';
import { findVmParts } from '../images/vm.ts';
import { type Check, fail, ok, unknown, warn } from './check.ts';
import type { Examination } from './host.ts';

const BUILD = './polydev image build';
/** A gigabyte on a slow disk; nobody waits for a machine meanwhile, ms. */
const READ_MS = 60_000;

export async function image({ imageCacheDir, checkout }: Examination): Promise<Check[]> {
  const images = openImageStore(imageCacheDir);
  const current = await images.current();
  if (current === undefined) return [fail('image', `there is none in ${imageCacheDir}`, BUILD)];
  const facts = await imageFacts(images, imageCacheDir, current.id, true, READ_MS);
  const broken = (facts?.layers ?? []).filter(({ state }) => state !== 'whole');
  const whole =
    broken.length === 0
      ? ok('image', `${current.id}: every byte is as verified at ${current.verified}`)
      : broken.every(({ state }) => state === 'unread')
        ? unknown(
            'image',
            `${current.id}: its large layers could not be read in time`,
            './polydev image verify',
          )
        : fail(
            'image',
            broken.map(({ file, state }) => `${file}: ${state.replace('_', ' ')}`).join('; '),
            `rm ${broken.map(({ file }) => `${imageCacheDir}/${file}`).join(' ')}; ${BUILD}`,
          );
  const expected = await images.expected(checkout);
  return expected === current.id
    ? [whole]
    : [whole, warn('image version', `${current.id}; this checkout's recipe gives ${expected}`, BUILD)];
}

/** Of Linux's boot protocol for x86: the header's magic, and the field whose first bit says 64 bits. */
const HEADER_AT = 0x202;
const XLOADFLAGS_AT = 0x236;
const ELF_X86_64 = 0x3e;

/** What a kernel file is for, by its own header; undefined for something else. */
async function kernelKind(path: string): Promise<string | undefined> {
  await using file = await open(path, 'r');
  const head = Buffer.alloc(0x240);
  await file.read(head, 0, head.length, 0);
  if (head.subarray(HEADER_AT, HEADER_AT + 4).toString('latin1') === 'HdrS') {
    return (head.readUInt16LE(XLOADFLAGS_AT) & 1) === 1 ? 'bzImage for x86-64' : undefined;
  }
  const elf = head.subarray(0, 4).toString('latin1') === '\x7fELF';
  return elf && head.readUInt16LE(18) === ELF_X86_64 ? 'ELF for x86-64' : undefined;
}

/** Kernel and initramfs of virtual machines; namespaces need none. */
export async function vmKernel({ imageCacheDir: cacheDir, checkout, driver }: Examination): Promise<Check> {
  const remedy = './polydev image build --vm';
  const parts = await findVmParts({ cacheDir, checkout });
  const needed = driver === 'qemu' || driver === 'firecracker';
  if (parts === undefined) {
    return needed
      ? fail('vm kernel', 'the kernel of virtual machines was not made', remedy)
      : ok('vm kernel', 'not made; only virtual machines need it', remedy);
  }
  return tryKernel(parts, `rm -r ${cacheDir}/vm/${parts.id}; ${remedy}`);
}

/** Whether files are what they should be, by their own headers. */
export async function tryKernel(
  parts: { kernel: string; initrd: string; release: string },
  again: string,
): Promise<Check> {
  try {
    const kind = await kernelKind(parts.kernel);
    if (kind === undefined) return fail('vm kernel', `${parts.kernel} is no kernel for x86-64`, again);
    await using initrd = await open(parts.initrd, 'r');
    const { size } = await initrd.stat();
    if (size === 0) return fail('vm kernel', `${parts.initrd} is empty`, again);
    return ok('vm kernel', `${parts.release}, ${kind}, initramfs of ${Math.round(size / 1024)} KiB`);
  } catch (error) {
    return fail('vm kernel', error instanceof Error ? error.message : String(error), again);
  }
}
