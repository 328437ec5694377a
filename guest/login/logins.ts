import path from 'node:path';
import type { LoginStart } from '../../protocol/agent.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { isFinal, Login, type LoginOptions } from './login.ts';

/** The login of this machine: at most one runs, and the last one stays to be asked about. */
export class Logins {
  readonly #options: Omit<LoginOptions, 'directory' | 'provider' | 'start'>;
  readonly #directory: string;
  #current: Login | undefined;

  constructor(directory: string, options: Omit<LoginOptions, 'directory' | 'provider' | 'start'>) {
    this.#directory = directory;
    this.#options = options;
  }

  /** Starts a login. The same session again gets the same login; another one must wait until it is over. */
  start(start: LoginStart, provider: LoginOptions['provider']): Login {
    const running = this.#current;
    if (running !== undefined) {
      if (running.status.session === start.session) return running;
      if (!isFinal(running.status.state)) {
        throw new PolydevError('login_in_progress', `${running.status.session} is logging in here`);
      }
    }
    const directory = path.join(this.#directory, start.session);
    const login = new Login({ ...this.#options, directory, provider, start });
    this.#current = login;
    void login.run();
    return login;
  }

  /** The login that was started last; `not_found` when there was none. */
  get current(): Login {
    if (this.#current === undefined) throw new PolydevError('not_found', 'no login was started here');
    return this.#current;
  }
}
