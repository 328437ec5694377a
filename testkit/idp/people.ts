/**
 * Who can sign in at the test identity provider.
 *
 * Any e-mail address is accepted with the one test password; what stands before the `@` chooses a fault,
 * so a test asks for a fault by what its person types and needs no hidden interface.
 */

/** The person that tests use when nothing special is wanted. `.test` can never be a real mail domain. */
export const TEST_PERSON = {
  email: 'ada@polydev.test',
  password: 'correct horse battery staple',
} as const;

/** Faults that can be chosen, keyed by the part of the e-mail address before the `@`. */
export const FAULTS = {
  /** The redirect back to the CLI carries a `state` the CLI did not send. */
  'wrong-state': 'the redirect carries another state',
  /** The token answer has no refresh token. */
  'no-refresh': 'no refresh token is issued',
  /** Every page after the e-mail was typed, and the token answer, take {@link SLOW_MS} longer. */
  slow: 'answers come late',
  /** The first access token is inside the CLI's refresh margin; refreshed ones live normally. */
  'short-lived': 'the first access token is about to expire',
  /** The code that the CLI receives is refused when it is exchanged. */
  'refused-code': 'the code exchange fails',
} as const;

/** Name of a fault. */
export type Fault = keyof typeof FAULTS;

/** How much later a `slow` person's answers come, in milliseconds. */
export const SLOW_MS = 3_000;

/** The e-mail address that makes the identity provider show `fault`. */
export function emailFor(fault: Fault): string {
  return `${fault}@polydev.test`;
}

/** The fault that an e-mail address asks for, if any. */
export function faultOf(email: string): Fault | undefined {
  const local = email.slice(0, Math.max(0, email.lastIndexOf('@')));
  return Object.hasOwn(FAULTS, local) ? (local as Fault) : undefined;
}
