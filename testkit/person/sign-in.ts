/** How a person signs in at the test identity provider, from the first look at the screen to the end of consent. */
import { PolydevError } from '../../protocol/errors.ts';
import type { IdpProvider } from '../idp/hosts.ts';
import { Person } from './person.ts';
import type { RfbClient } from './rfb.ts';

/** What the person has done or seen, in this order. */
export type SignInStep =
  | 'sign-in page seen'
  | 'e-mail typed'
  | 'password typed'
  | 'signed in'
  | 'consent page seen'
  | 'allowed'
  | 'denied'
  | 'left the provider';

/** Everything that {@link signIn} needs to know. */
export interface SignIn {
  rfb: RfbClient;
  provider: IdpProvider;
  email: string;
  password: string;
  consent: 'allow' | 'deny';
  /** Called after each step; `ms` since the start. May take a screenshot until consent is given. */
  onStep?: (step: SignInStep, ms: number, person: Person) => void;
  /** For the sign-in page to appear (the browser may still be starting), in milliseconds. Default 60 s. */
  firstPageMs?: number;
  /** For every later step, in milliseconds. Default 20 s. */
  stepMs?: number;
  signal?: AbortSignal;
}

/** After the consent page is gone: an error page of the provider would be painted by then. */
const QUIET_MS = 600;

/**
 * Signs in by looking, clicking and typing, and gives or refuses consent. Resolves when the browser has left the provider's
 * pages; whether the CLI is content is for the caller to see. No screenshot is possible after Allow or Deny.
 *
 * @throws PolydevError `login_rejected` when the provider refuses the password or shows its error page,
 *   `desktop_failed` when a page does not come in time (the message says what the screen shows) or the desktop is lost;
 *   the signal's reason when it is called off.
 */
export async function signIn(options: SignIn): Promise<void> {
  const { rfb, email, password, consent, signal } = options;
  const { firstPageMs = 60_000, stepMs = 20_000 } = options;
  const since = Date.now();
  const person = new Person(rfb, signal);
  const step = (name: SignInStep) => options.onStep?.(name, Date.now() - since, person);
  const soon = { deadlineMs: stepMs };

  const first = await person.seeAny(['sign-in', 'error'], { deadlineMs: firstPageMs });
  if (first.name === 'error') throw rejected('it shows its error page instead of the sign-in page');
  step('sign-in page seen');

  await focus(person, 'emailField', 'emailFieldFocused', stepMs);
  await person.type(email);
  step('e-mail typed');
  await focus(person, 'passwordField', 'passwordFieldFocused', stepMs);
  await person.type(password);
  step('password typed');
  await person.click('signInButton', soon);

  const second = await person.seeAny(['consent', 'errorBanner', 'error'], soon);
  if (second.name === 'errorBanner') throw rejected('it refused the e-mail address and password');
  if (second.name === 'error') throw rejected('it shows its error page after the sign-in');
  step('signed in');
  const button = consent === 'allow' ? 'allowButton' : 'denyButton';
  await person.see(button, soon);
  step('consent page seen');

  // From here on the address bar can hold a token: Codex's success page has one in its URL.
  person.lookAway();
  await person.click(button, soon);
  step(consent === 'allow' ? 'allowed' : 'denied');
  await gone(rfb, person, stepMs, signal);
  step('left the provider');
}

/** Clicks a field until it shows that it has the keyboard; one that already has it is left alone. */
async function focus(
  person: Person,
  field: 'emailField' | 'passwordField',
  focused: 'emailFieldFocused' | 'passwordFieldFocused',
  stepMs: number,
): Promise<void> {
  const due = Date.now() + stepMs;
  for (;;) {
    const left = { deadlineMs: due - Date.now() };
    // An autofocused field is clicked too: the window itself may not have the keyboard yet.
    const { name } = await person.seeAny([focused, field], left);
    await person.click(name, left);
    const after = await person
      .seeAny([focused], { deadlineMs: Math.min(2_000, Math.max(0, due - Date.now())) })
      .catch((error: unknown) => {
        if (Date.now() >= due) throw error;
        return undefined;
      });
    if (after) return;
  }
}

async function gone(rfb: RfbClient, person: Person, stepMs: number, signal?: AbortSignal): Promise<void> {
  const what = 'the consent page to go away';
  const wait = { deadlineMs: stepMs, ...(signal ? { signal } : {}) };
  await rfb.waitFor(() => (person.find('consent') ? undefined : true), what, wait);
  const due = Date.now() + QUIET_MS;
  while (Date.now() < due && (await rfb.changedWithin(due - Date.now(), signal))) {
    if (person.find('error')) break;
  }
  if (person.find('error')) throw rejected('it shows its error page after consent');
}

function rejected(what: string): PolydevError {
  return new PolydevError('login_rejected', `the test identity provider did not let the person in: ${what}`);
}
