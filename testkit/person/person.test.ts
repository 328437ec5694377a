import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { TARGET } from '../idp/colours.ts';
import { Person } from './person.ts';
import type { RfbClient } from './rfb.ts';

const [WIDTH, HEIGHT] = [300, 200];

/** A desktop of one colour, which remembers where it was clicked. */
function desktop(colour: number) {
  const pixels = Buffer.alloc(WIDTH * HEIGHT * 4);
  const clicks: { x: number; y: number }[] = [];
  const paint = (rgb: number): void => {
    for (let at = 0; at < pixels.length; at += 4) pixels.writeUIntBE(rgb, at, 3);
  };
  paint(colour);
  const parts: Pick<RfbClient, 'screen' | 'waitFor' | 'changedWithin' | 'movePointer' | 'leftButton'> = {
    screen: { width: WIDTH, height: HEIGHT, pixels },
    async waitFor(look, what, wait) {
      const due = Date.now() + wait.deadlineMs;
      for (;;) {
        const found = look(this.screen);
        if (found !== undefined) return found;
        if (Date.now() > due) throw new Error(`waited in vain for ${what}`);
        await sleep(10);
      }
    },
    changedWithin: (ms) => sleep(Math.min(ms, 10), true),
    movePointer: () => undefined,
    leftButton: (down, x, y) => void (down && clicks.push({ x, y })),
  };
  return { rfb: parts as RfbClient, paint, clicks };
}

it('clicks a field that looks otherwise by the time of the click', async () => {
  const { rfb, paint, clicks } = desktop(TARGET.passwordField);
  const clicking = new Person(rfb).click(['passwordFieldFocused', 'passwordField'], { deadlineMs: 5_000 });
  // A click before this one has given it the keyboard, late.
  paint(TARGET.passwordFieldFocused);
  await clicking;
  expect(clicks).toEqual([{ x: expect.any(Number), y: expect.any(Number) }]);
});
