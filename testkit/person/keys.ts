/** Keys by name and by character, as X11 keysyms (X11/keysymdef.h), on a US keyboard. */

/** Keys that have no character. */
export const NAMED_KEYS = {
  Backspace: 0xff08,
  Tab: 0xff09,
  Enter: 0xff0d,
  Escape: 0xff1b,
  Home: 0xff50,
  Left: 0xff51,
  Up: 0xff52,
  Right: 0xff53,
  Down: 0xff54,
  End: 0xff57,
  Shift: 0xffe1,
  Control: 0xffe3,
  Alt: 0xffe9,
  Delete: 0xffff,
} as const;

/** Name of such a key. */
export type NamedKey = keyof typeof NAMED_KEYS;

/** The keysym of a printable ASCII character, which is its code. @throws RangeError for any other character. */
export function keysymOf(character: string): number {
  if (!/^[\x20-\x7e]$/.test(character)) throw new RangeError('only printable ASCII can be typed');
  return character.charCodeAt(0);
}

/** Whether a US keyboard needs Shift for the character. */
export function needsShift(character: string): boolean {
  return /[A-Z~!@#$%^&*()_+{}|:"<>?]/.test(character);
}
