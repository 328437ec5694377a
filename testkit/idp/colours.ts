/**
 * The colours by which a person-robot that sees only pixels knows the pages and finds what to click.
 *
 * Each is used for one thing, is drawn solid (no gradient, shadow or transparency inside it), and differs from every
 * other by at least {@link MIN_DISTANCE} in some channel. The pages are written with them and `testkit/person` looks for them.
 */

/** A colour as 0xRRGGBB. */
export type Colour = number;

/** The band across the top of the page: which page is shown. */
export const PAGE = {
  'sign-in': 0x2f6693,
  consent: 0x6a4b9d,
  'device-code': 0xb27b2c,
  done: 0x2d8d5e,
  error: 0xb13a4b,
} as const satisfies Record<string, Colour>;

/** Name of a page of the test identity provider. */
export type PageName = keyof typeof PAGE;

/** What can be clicked, or must be noticed. Fields change colour while they have the keyboard. */
export const TARGET = {
  emailField: 0xfbf3e3,
  emailFieldFocused: 0xffedbd,
  passwordField: 0xede6fb,
  passwordFieldFocused: 0xdfd3f8,
  codeField: 0xe5f5ef,
  codeFieldFocused: 0xc6ebdc,
  signInButton: 0x2460c6,
  continueButton: 0x8a5f14,
  allowButton: 0x1d8763,
  denyButton: 0xe2d3c9,
  errorBanner: 0xf8d2cf,
} as const satisfies Record<string, Colour>;

/** Name of a target on a page. */
export type TargetName = keyof typeof TARGET;

/** Smallest difference, in at least one channel (0-255), between any two of these colours. */
export const MIN_DISTANCE = 8;

/** `#rrggbb` as CSS wants it. */
export function css(colour: Colour): string {
  return `#${colour.toString(16).padStart(6, '0')}`;
}
