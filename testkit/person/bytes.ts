/** Reads exact numbers of bytes from a stream. */
import type { Readable } from 'node:stream';

/** One reader per stream, one `take` at a time. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #held: Buffer[] = [];
  #size = 0;

  constructor(stream: Readable) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** The next `count` bytes. @throws when the stream fails or ends before. */
  async take(count: number): Promise<Buffer> {
    while (this.#size < count) {
      const { value, done } = await this.#chunks.next();
      if (done) throw new Error('the stream ended');
      this.#held.push(value);
      this.#size += value.length;
    }
    const all = this.#held.length === 1 ? (this.#held[0] as Buffer) : Buffer.concat(this.#held);
    this.#held = all.length > count ? [all.subarray(count)] : [];
    this.#size = all.length - count;
    return all.subarray(0, count);
  }
}
