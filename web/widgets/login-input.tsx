import { type FormEvent, useState } from 'react';
import type { Session } from '../../protocol/api.ts';
import { type Problem, post, problemOf } from '../data/api.ts';

export interface LoginInputProps {
  readonly session: Session;
  readonly onProblem: (problem: Problem | undefined) => void;
}

/**
 * The other way to sign in: in the person's own browser. The provider then shows a code, or sends the browser to an
 * address on this computer that answers nothing; either is handed to the CLI here. Closed until asked for.
 */
export function LoginInput({ session, onProblem }: LoginInputProps) {
  const [text, setText] = useState('');
  const [sent, setSent] = useState(false);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    onProblem(undefined);
    setSent(false);
    try {
      await post(`/api/auth/session/${session.id}/input`, { text: text.trim() });
      setText('');
      setSent(true);
    } catch (thrown) {
      onProblem(problemOf(thrown));
    }
  };
  // The test identity provider exists only inside its sealed network: there is nothing to open from here.
  const openable = session.realm === 'internet' && session.loginUrl !== null;
  return (
    <details className="more">
      <summary>Sign in with your own browser instead</summary>
      <div className="more-body">
        <ol className="instructions">
          {openable && (
            <li>
              Open{' '}
              <a href={session.loginUrl ?? undefined} target="_blank" rel="noreferrer noopener">
                the provider's page
              </a>{' '}
              and sign in.
            </li>
          )}
          <li>
            You end at a code, or at an address that does not load: that is expected. Copy the code, or the
            whole address, into this field.
          </li>
        </ol>
        <form className="paste" onSubmit={(event) => void submit(event)}>
          <label htmlFor="login-input" className="visually-hidden">
            Code or address
          </label>
          <input
            id="login-input"
            className="field"
            value={text}
            onChange={(event) => setText(event.target.value)}
            placeholder="Code or address"
            required
            maxLength={8192}
            autoComplete="off"
            spellCheck={false}
          />
          <button type="submit" className="button button-plain">
            Hand it to the CLI
          </button>
        </form>
        <p role="status" className="hint">
          {sent ? 'Handed over. The steps show what comes of it.' : ''}
        </p>
      </div>
    </details>
  );
}
