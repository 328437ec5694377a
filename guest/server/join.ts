import type { Duplex } from 'node:stream';

/** Copies both ways with backpressure until either side ends or breaks; then both are closed. */
export function join(left: Duplex, right: Duplex): void {
  const close = () => {
    left.destroy();
    right.destroy();
  };
  for (const side of [left, right]) {
    side.on('error', close);
    side.on('close', close);
  }
  left.pipe(right);
  right.pipe(left);
}
