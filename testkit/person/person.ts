/**
 * testkit/person: somebody who sits in front of a remote desktop. They see pixels, move the pointer and type; they know
 * nothing of the page's insides, so what they can do a real person can do.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { PolydevError } from '../../protocol/errors.ts';
import { type Colour, PAGE, type PageName, TARGET, type TargetName } from '../idp/colours.ts';
import { keysymOf, NAMED_KEYS, type NamedKey, needsShift } from './keys.ts';
import { type Block, countOf, largestBlock, png } from './picture.ts';
import type { RfbClient, Wait } from './rfb.ts';

/** The smallest targets are 120 x 40; a quarter of that may be hidden by text or by another window. */
const TARGET_AREA = 120 * 40 * 0.75;
/** A page's band is at least this large in any window that can be used. */
const BAND_AREA = 5_000;
/** A block that stays in place this long is not about to move: the window has its size, the page is laid out. */
const STILL_MS = 200;
/** Between two keys: a fast typist, and slow enough for any input method to keep the order. */
const KEY_MS = 15;

/** Somebody at the desktop behind `rfb`. */
export class Person {
  readonly #rfb: RfbClient;
  readonly #signal: AbortSignal | undefined;
  #lookedAway = false;

  constructor(rfb: RfbClient, signal?: AbortSignal) {
    this.#rfb = rfb;
    this.#signal = signal;
  }

  /**
   * Waits until one of `targets` is on the screen, whole enough to be used, and tells which and where.
   *
   * @throws PolydevError `desktop_failed` when the deadline passes, saying which page was seen last, or the connection ends.
   */
  async seeAny<T extends PageName | TargetName>(
    targets: readonly T[],
    wait: Wait,
  ): Promise<{ name: T; block: Block }> {
    const look = () => {
      for (const name of targets) {
        const block = this.find(name);
        if (block) return { name, block };
      }
      return undefined;
    };
    return this.#look(look, targets.join(' or '), wait);
  }

  /** Whether a target is on the screen now or within `ms`. @throws like {@link seeAny}, except for the time. */
  async seesWithin(target: PageName | TargetName, ms: number, signal?: AbortSignal): Promise<boolean> {
    const due = Date.now() + ms;
    const all = this.#wait({ deadlineMs: ms, ...(signal ? { signal } : {}) });
    while (!this.find(target)) {
      const left = due - Date.now();
      if (left <= 0 || !(await this.#rfb.changedWithin(left, all.signal)))
        return this.find(target) !== undefined;
    }
    return true;
  }

  /** Waits until a target is no longer on the screen. @throws like {@link seeAny}. */
  async seeGone(target: PageName | TargetName, wait: Wait): Promise<void> {
    await this.#look(() => (this.find(target) ? undefined : true), `"${target}" to go away`, wait);
  }

  /** Waits for one target; see {@link seeAny}. */
  async see(target: PageName | TargetName, wait: Wait): Promise<Block> {
    return (await this.seeAny([target], wait)).block;
  }

  /** The largest solid block of a target's colour on the screen now, if it is large enough. */
  find(target: PageName | TargetName): Block | undefined {
    return largestBlock(this.#rfb.screen, colourOf(target), target in PAGE ? BAND_AREA : TARGET_AREA);
  }

  /** Which page of the test identity provider is shown now, if any. */
  page(): PageName | undefined {
    return (Object.keys(PAGE) as PageName[]).find((name) => this.find(name));
  }

  /** What is on the screen in words, for an error. Holds no text from the screen. */
  describe(): string {
    const { width, height } = this.#rfb.screen;
    const size = `${width}x${height}`;
    const page = this.page();
    if (page) return `the test identity provider's "${page}" page (${size})`;
    const names = [...Object.keys(PAGE), ...Object.keys(TARGET)] as (PageName | TargetName)[];
    const parts = names.filter((name) => countOf(this.#rfb.screen, colourOf(name)) > 200);
    const hint = parts.length > 0 ? `, only parts of: ${parts.join(', ')}` : '';
    return `no page of the test identity provider (${size}${hint})`;
  }

  /**
   * Waits for a target to be there and still, then clicks its middle. Of several names the first that is seen: one thing may look otherwise a
   * moment later.
   */
  async click(targets: TargetName | readonly TargetName[], wait: Wait): Promise<void> {
    const due = Date.now() + wait.deadlineMs;
    for (;;) {
      const { name, block } = await this.seeAny([targets].flat(), { ...wait, deadlineMs: due - Date.now() });
      await sleep(STILL_MS, undefined, this.#options());
      const again = this.find(name);
      if (again && again.left === block.left && again.top === block.top) {
        this.#rfb.movePointer(again.x, again.y);
        this.#rfb.leftButton(true, again.x, again.y);
        await sleep(KEY_MS, undefined, this.#options());
        this.#rfb.leftButton(false, again.x, again.y);
        return;
      }
    }
  }

  /** Types text on a US keyboard, shift included. @throws RangeError for a character that it does not have. */
  async type(text: string): Promise<void> {
    for (const character of text) {
      const keysym = keysymOf(character);
      const shift = needsShift(character);
      if (shift) this.#rfb.key(NAMED_KEYS.Shift, true);
      this.#rfb.key(keysym, true);
      this.#rfb.key(keysym, false);
      if (shift) this.#rfb.key(NAMED_KEYS.Shift, false);
      await sleep(KEY_MS, undefined, this.#options());
    }
  }

  /** Presses and releases a named key, `with` another one held. */
  async press(key: NamedKey | string, held?: NamedKey): Promise<void> {
    const keysym = key in NAMED_KEYS ? NAMED_KEYS[key as NamedKey] : keysymOf(key);
    if (held) this.#rfb.key(NAMED_KEYS[held], true);
    this.#rfb.key(keysym, true);
    this.#rfb.key(keysym, false);
    if (held) this.#rfb.key(NAMED_KEYS[held], false);
    await sleep(KEY_MS, undefined, this.#options());
  }

  /** From now on {@link screenshot} refuses: what comes next on this screen may show a token. */
  lookAway(): void {
    this.#lookedAway = true;
  }

  /** The screen now as a PNG file. @throws PolydevError `forbidden` after {@link lookAway}. */
  screenshot(): Buffer {
    if (this.#lookedAway) {
      throw new PolydevError('forbidden', 'no screenshot after consent: the address bar may show a token');
    }
    return png(this.#rfb.screen);
  }

  async #look<T>(look: () => T | undefined, what: string, wait: Wait): Promise<T> {
    const all = this.#wait(wait);
    try {
      return await this.#rfb.waitFor(look, what, all);
    } catch (error) {
      all.signal?.throwIfAborted();
      const message = error instanceof Error ? error.message : String(error);
      throw new PolydevError('desktop_failed', `${message}; the screen shows ${this.describe()}`, {
        cause: error,
      });
    }
  }

  #options(): { signal?: AbortSignal } {
    return this.#signal ? { signal: this.#signal } : {};
  }

  #wait(wait: Wait): Wait {
    const signals = [wait.signal, this.#signal].filter((signal) => signal !== undefined);
    return {
      deadlineMs: wait.deadlineMs,
      ...(signals.length > 0 ? { signal: AbortSignal.any(signals) } : {}),
    };
  }
}

function colourOf(target: PageName | TargetName): Colour {
  return target in PAGE ? PAGE[target as PageName] : TARGET[target as TargetName];
}
