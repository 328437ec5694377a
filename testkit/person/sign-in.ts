/** How a person signs in at the test identity provider, from the first look at the screen to the end of consent. */
import { PolydevError } from '../../protocol/errors.ts';
import type { ProviderId } from '../../protocol/ids.ts';
import { IDP_HOSTS } from '../idp/hosts.ts';
import { Person } from './person.ts';
import type { RfbClient, Wait } from './rfb.ts';

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

/** Everything that a person needs to know to sign in. */
export interface SignIn {
  rfb: RfbClient;
  provider: ProviderId;
  email: string;
  password: string;
  consent: 'allow' | 'deny';
  /** Called after each step; `ms` since the start. `person` may take a screenshot in it up to 'consent page seen'. */
  onStep?: (step: SignInStep, ms: number, person: Person) => void;
  /** For the sign-in page to appear (the browser may still be starting), in milliseconds. Default 60 s. */
  firstPageMs?: number;
  /** For every later step, in milliseconds. Default 30 s. */
  stepMs?: number;
  signal?: AbortSignal;
}

/** After the consent page is gone: an error page of the provider would be painted by then. */
const QUIET_MS = 600;
/** A field that was clicked shows it has the keyboard long before; if not, the click is repeated. */
const FOCUS_MS = 2_000;

/**
 * Signs in at the test identity provider by looking, clicking and typing, and gives or refuses consent. Resolves when the
 * browser has left the provider's pages; whether the CLI is content is for the caller to see. From the consent on,
 * no screenshot is possible.
 *
 * @throws PolydevError `login_rejected` when the provider refuses the password or shows its error page,
 *   `desktop_failed` when a page does not come in time (the message says what the screen shows) or the desktop is lost;
 *   the signal's reason when it is called off.
 */
export async function signIn(options: SignIn): Promise<void> {
  const { rfb, provider, email, password, consent, signal } = options;
  const { firstPageMs = 60_000, stepMs = 30_000 } = options;
  if (!Object.hasOwn(IDP_HOSTS, provider)) throw rejected(`it does not stand in for ${provider}`);
  const person = new Person(rfb, signal);
  const since = Date.now();
  const step = (name: SignInStep) => options.onStep?.(name, Date.now() - since, person);
  const within = (deadlineMs: number): Wait => ({ deadlineMs, ...(signal ? { signal } : {}) });

  const first = await person.seeAny(['sign-in', 'error'], within(firstPageMs));
  if (first.name === 'error') throw rejected('it shows its error page instead of the sign-in page');
  step('sign-in page seen');

  await fill('emailField', 'emailFieldFocused', email);
  step('e-mail typed');
  await fill('passwordField', 'passwordFieldFocused', password);
  step('password typed');
  await person.click('signInButton', within(stepMs));

  const second = await person.seeAny(['consent', 'errorBanner', 'error'], within(stepMs));
  if (second.name === 'errorBanner') throw rejected('it refused the e-mail address and password');
  if (second.name === 'error') throw rejected('it shows its error page after the sign-in');
  step('signed in');
  const button = consent === 'allow' ? 'allowButton' : 'denyButton';
  await person.see(button, within(stepMs));
  step('consent page seen');

  // From here on the address bar can hold a token: Codex's success page has one in its URL.
  person.lookAway();
  await person.click(button, within(stepMs));
  step(consent === 'allow' ? 'allowed' : 'denied');
  await person.seeGone('consent', within(stepMs));
  if (await person.seesWithin('error', QUIET_MS, signal)) {
    throw rejected('it shows its error page after consent');
  }
  step('left the provider');

  /** Clicks the field until it shows that it has the keyboard, then types. */
  async function fill(
    field: 'emailField' | 'passwordField',
    focused: 'emailFieldFocused' | 'passwordFieldFocused',
    text: string,
  ): Promise<void> {
    const due = Date.now() + stepMs;
    do {
      // An autofocused field is clicked too: the window around it may not have the keyboard yet. On a slow computer a click that is
      // about to be repeated shows what it did.
      await person.click([focused, field], within(due - Date.now()));
    } while (!(await person.seesWithin(focused, FOCUS_MS, signal)));
    await person.type(text);
  }
}

function rejected(what: string): PolydevError {
  return new PolydevError('login_rejected', `the test identity provider did not let the person in: ${what}`);
}
