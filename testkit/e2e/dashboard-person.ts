/**
 * Somebody who signs in through the dashboard: sees the live desktop as pixels of the page, and uses the page's own
 * mouse and keyboard, so that everything passes noVNC and the WebSocket like theirs.
 */
import { inflateSync } from 'node:zlib';
import type { Page } from 'playwright-core';
import { type Colour, PAGE, type PageName, TARGET, type TargetName } from '../idp/colours.ts';
import { largestBlock } from '../person/picture.ts';
import type { Screen } from '../person/rfb.ts';

type Name = PageName | TargetName;

/** The desktop is scaled into its place in the page, not below half of its size; see `TARGET_AREA` in person.ts. */
const TARGET_AREA = (120 * 40 * 0.75) / 4;
const BAND_AREA = 5_000 / 4;
/** Between two looks, in milliseconds; each costs a screenshot. */
const LOOK_MS = 100;
/** Between two keys, in milliseconds. */
const KEY_MS = 15;
/** For a field to show that it has the keyboard before it is clicked again, and for each page to come, in milliseconds. */
const FOCUS_MS = 4_000;
const STEP_MS = 60_000;

/** The live desktop in the page; the screen itself is the canvas that noVNC draws. */
export const DESKTOP = '[role=application][data-phase=live] canvas';

/** What is seen of a target: its middle and its upper left corner, in pixels of the page. */
interface Seen<T> {
  readonly name: T;
  readonly x: number;
  readonly y: number;
  readonly left: number;
  readonly top: number;
}

const colourOf = (name: Name): Colour => (name in PAGE ? PAGE[name as PageName] : TARGET[name as TargetName]);

/** Looks once. The picture is never kept: after consent the desktop's address bar holds a token. */
async function look<T extends Name>(
  page: Page,
  names: readonly T[],
): Promise<Seen<T> | 'no desktop' | undefined> {
  const place = await page
    .locator(DESKTOP)
    .boundingBox({ timeout: 500 })
    .catch(() => null);
  if (place === null) return 'no desktop';
  const clip = { x: Math.ceil(place.x), y: Math.ceil(place.y), width: place.width, height: place.height };
  const picture = decodePng(await page.screenshot({ clip, caret: 'initial' }));
  for (const name of names) {
    const block = largestBlock(picture, colourOf(name), name in PAGE ? BAND_AREA : TARGET_AREA);
    if (block === undefined) continue;
    return { name, x: clip.x + block.x, y: clip.y + block.y, left: block.left, top: block.top };
  }
  return undefined;
}

/**
 * Waits until one of `names` is on the live desktop and stays where it is.
 *
 * @throws Error naming what was waited for, after `deadlineMs`
 */
export async function seeAny<T extends Name>(
  page: Page,
  names: readonly T[],
  deadlineMs = STEP_MS,
): Promise<Seen<T>> {
  let before: Seen<T> | undefined;
  for (const due = Date.now() + deadlineMs; Date.now() < due; await page.waitForTimeout(LOOK_MS)) {
    const seen = await look(page, names);
    if (seen === 'no desktop' || seen === undefined) before = undefined;
    else if (before?.name === seen.name && before.left === seen.left && before.top === seen.top) return seen;
    else before = seen;
  }
  throw new Error(`the live desktop did not show ${names.join(' or ')} within ${deadlineMs} ms`);
}

/** How a person signs in through the page. */
export interface PageSignIn {
  readonly email: string;
  readonly password: string;
  readonly consent: 'allow' | 'deny';
  /** Called before each page's button is pressed, while the desktop shows no token: the time for a picture. */
  readonly onPage?: (shown: 'sign-in' | 'consent') => Promise<void>;
}

/**
 * Signs in on the live desktop of the login that `page` shows, and gives or refuses consent. Resolves when the consent
 * page is gone; what came of it is for the dashboard to say. The page must be wide enough to show the desktop at half size.
 *
 * @throws Error when something does not appear in time
 */
export async function signInThroughPage(page: Page, options: PageSignIn): Promise<void> {
  await seeAny(page, ['sign-in']);
  await fill(page, 'emailField', 'emailFieldFocused', options.email);
  await fill(page, 'passwordField', 'passwordFieldFocused', options.password);
  await options.onPage?.('sign-in');
  await click(page, 'signInButton');
  await seeAny(page, ['consent']);
  await options.onPage?.('consent');
  await click(page, options.consent === 'allow' ? 'allowButton' : 'denyButton');
  for (const due = Date.now() + STEP_MS; ; await page.waitForTimeout(LOOK_MS)) {
    const seen = await look(page, ['consent']);
    if (seen === 'no desktop' || seen === undefined) return;
    if (Date.now() > due) throw new Error('the consent page stayed after the click');
  }
}

async function click(page: Page, name: TargetName): Promise<void> {
  const { x, y } = await seeAny(page, [name]);
  await page.mouse.click(x, y, { delay: KEY_MS });
}

/** Clicks the field until it shows that it has the keyboard, then types. */
async function fill(page: Page, field: TargetName, focused: TargetName, text: string): Promise<void> {
  for (const due = Date.now() + STEP_MS; Date.now() < due; ) {
    // A field with the page's focus is clicked too: noVNC itself may not have the keyboard yet.
    const { x, y } = await seeAny(page, [focused, field]);
    await page.mouse.click(x, y, { delay: KEY_MS });
    const ready = await seeAny(page, [focused], FOCUS_MS).catch(() => undefined);
    if (ready !== undefined) return page.keyboard.type(text, { delay: KEY_MS });
  }
  throw new Error(`"${field}" did not take the keyboard`);
}

/** What every filter of a PNG row adds to a byte: from the pixel to the left, above, and above to the left. */
const FILTERS: readonly ((left: number, up: number, corner: number) => number)[] = [
  () => 0,
  (left) => left,
  (_left, up) => up,
  (left, up) => (left + up) >> 1,
  (left, up, corner) => {
    const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
    if (a <= b && a <= c) return left;
    return b <= c ? up : corner;
  },
];

/**
 * A browser's screenshot as pixels: PNG (ISO/IEC 15948), 8 bits, RGB or RGBA, not interlaced.
 *
 * @throws RangeError for any other kind
 */
export function decodePng(file: Buffer): Screen {
  const data: Buffer[] = [];
  let header: Buffer = Buffer.alloc(13);
  for (let at = 8; at < file.length; ) {
    const size = file.readUInt32BE(at);
    const type = file.toString('latin1', at + 4, at + 8);
    const body = file.subarray(at + 8, at + 8 + size);
    if (type === 'IHDR') header = body;
    if (type === 'IDAT') data.push(body);
    at += size + 12;
  }
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  const [depth, kind, , , interlaced] = header.subarray(8);
  if (depth !== 8 || (kind !== 2 && kind !== 6) || interlaced !== 0) {
    throw new RangeError(`PNG of depth ${depth}, kind ${kind}, interlace ${interlaced}`);
  }
  const step = kind === 2 ? 3 : 4;
  const stride = width * step;
  const rows = inflateSync(Buffer.concat(data));
  const pixels = Buffer.alloc(width * height * 4, 0xff);
  let above: Buffer = Buffer.alloc(stride);
  for (let y = 0; y < height; y++) {
    const from = y * (stride + 1);
    const add = FILTERS[rows[from] ?? 0];
    if (add === undefined) throw new RangeError(`PNG row filter ${rows[from]}`);
    const row = rows.subarray(from + 1, from + 1 + stride);
    for (let i = 0; i < stride; i++) {
      const left = i < step ? 0 : (row[i - step] ?? 0);
      const corner = i < step ? 0 : (above[i - step] ?? 0);
      row[i] = (row[i] ?? 0) + add(left, above[i] ?? 0, corner);
      if (i % step < 3) pixels[(y * width + Math.floor(i / step)) * 4 + (i % step)] = row[i] ?? 0;
    }
    above = row;
  }
  return { width, height, pixels };
}
