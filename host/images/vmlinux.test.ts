import { expect, it } from 'vitest';
import { vmlinuxOf } from './vmlinux.ts';

/** A bzImage whose payload is `blocks`, which unpack to `size` bytes. */
function bzImage(blocks: readonly Buffer[], size: number, magic = 0x184c2102): Buffer {
  const word = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  const payload = Buffer.concat([
    word(magic),
    ...blocks.flatMap((block) => [word(block.length), block]),
    word(size),
  ]);
  const setup = Buffer.alloc(2 * 512);
  setup[0x1f1] = 1;
  setup.writeUInt32LE(0x53726448, 0x202);
  const offset = 16;
  setup.writeUInt32LE(offset, 0x248);
  setup.writeUInt32LE(payload.length, 0x24c);
  return Buffer.concat([setup, Buffer.alloc(offset, 0xee), payload, Buffer.alloc(32, 0xee)]);
}

/** Five literals, then a match of 20 bytes that overlaps itself, then two literals. */
const block = Buffer.concat([
  Buffer.from([0x5f]),
  Buffer.from('\x7fELF.', 'latin1'),
  Buffer.from([1, 0, 1]), // offset 1, length 15 + 1 + 4
  Buffer.from([0x20]),
  Buffer.from('!?'),
]);
const unpacked = `\x7fELF.${'.'.repeat(20)}!?`;

it('unpacks a kernel of one block and of several', () => {
  expect(vmlinuxOf(bzImage([block], unpacked.length)).toString('latin1')).toBe(unpacked);
  const twice = vmlinuxOf(bzImage([block, block], 2 * unpacked.length));
  expect(twice.toString('latin1')).toBe(unpacked + unpacked);
});

it('names what it cannot unpack', () => {
  const message = (image: Buffer): string => {
    try {
      vmlinuxOf(image);
      return 'unpacked';
    } catch (error) {
      return (error as Error).message;
    }
  };
  expect(message(Buffer.alloc(2000))).toContain('it is no bzImage');
  expect(message(bzImage([block], unpacked.length, 0x1234))).toContain('it is not compressed with LZ4');
  expect(message(bzImage([block], unpacked.length + 1))).toContain('what is inside is no kernel');
  expect(message(bzImage([block], unpacked.length - 1))).toContain('a block is damaged');
  const badOffset = Buffer.from(block);
  badOffset[6] = 9;
  expect(message(bzImage([badOffset], unpacked.length))).toContain('a block is damaged');
});
