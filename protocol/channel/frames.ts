/**
 * protocol/channel/: many streams over one byte pipe between a host and its guest, for machines whose only channel is a
 * serial port. This file is the wire format; multiplexer.ts gives it life on both sides.
 *
 * A side says where its stream begins by the machine's mark (16 bytes that only the two know) and a nonce (16 bytes):
 * wherever the mark appears, whatever came before it is over. The host says mark + random nonce; the guest answers with
 * the same, and frames follow. A guest that starts anew, or lost its way, says mark + 16 zeros to be greeted again.
 */
export const MARK_BYTES = 16;
export const NONCE_BYTES = 16;
/** u8 type, u24 length of the payload, u32 number of the stream; big endian. */
export const HEADER_BYTES = 8;
export const MAX_PAYLOAD = 16 * 1024;
/** Bytes a side may send on a stream before the other grants more. */
export const WINDOW = 256 * 1024;
export const MAX_STREAMS = 256;

export const FRAME = {
  /** Host to guest; payload: u16 port. */
  open: 1,
  /** The guest's answer to `open`. */
  opened: 2,
  data: 3,
  /** No more data from this side. */
  end: 4,
  /** Over at once; payload: why, UTF-8. */
  reset: 5,
  /** Payload: u32 further bytes the other side may send. */
  grant: 6,
} as const;
export type FrameType = (typeof FRAME)[keyof typeof FRAME];

const TYPES: ReadonlySet<number> = new Set(Object.values(FRAME));

export interface Frame {
  type: FrameType;
  stream: number;
  payload: Buffer;
}

export function encodeFrame({ type, stream, payload }: Frame): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  frame.writeUInt32BE(type * 0x1000000 + payload.length, 0);
  frame.writeUInt32BE(stream, 4);
  payload.copy(frame, HEADER_BYTES);
  return frame;
}

/** The frame at the start of `bytes` and its whole length; undefined while it is not complete. Throws on garbage. */
export function decodeFrame(bytes: Buffer): { frame: Frame; length: number } | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const type = bytes.readUInt8(0);
  const length = bytes.readUIntBE(1, 3);
  if (!TYPES.has(type)) throw new Error(`no frame has type ${type}`);
  if (length > MAX_PAYLOAD) throw new Error(`a frame of ${length} bytes`);
  const end = HEADER_BYTES + length;
  if (bytes.length < end) return undefined;
  return {
    frame: {
      type: type as FrameType, // it is in TYPES
      stream: bytes.readUInt32BE(4),
      payload: bytes.subarray(HEADER_BYTES, end),
    },
    length: end,
  };
}
