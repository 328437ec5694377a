/**
 * providers/: one file per CLI: how its login starts, where its credential lives, what it must contain.
 * Imports only protocol/, so that guest, controller and test kit share it. Facts come from running the real CLIs.
 */
import type { CredentialFacts, CredentialFile } from '../protocol/agent.ts';
import type { ProviderId } from '../protocol/ids.ts';

/** A command of the CLI as the person runs it. `{home}` in a value is replaced by the person's home. */
export interface Command {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** What looking at a set of credential files says. Never holds a token. */
export type CredentialCheck =
  | { readonly state: 'complete'; readonly facts: CredentialFacts }
  | { readonly state: 'incomplete'; readonly problem: string };

export interface Provider {
  readonly id: ProviderId;
  readonly title: string;
  /** The npm package whose genuine CLI runs, as the golden image installs it. */
  readonly npmPackage: string;
  readonly login: {
    readonly command: Command;
    /**
     * How the URL is learnt: `browser-argv` = from the program named by $BROWSER, `output` = from what the CLI prints.
     * Both are read; this one is believed.
     */
    readonly urlFrom: 'browser-argv' | 'output';
    findUrl(text: string): URL | undefined;
    /** Seconds from the start of the CLI until its URL must have appeared. */
    readonly urlDeadlineSeconds: number;
    /** Names the failure in the CLI's output and exit code: the person denied, the answer was rejected, or unknown. */
    explainFailure(output: string): 'login_denied' | 'login_rejected' | 'login_cli_failed';
    /**
     * True when the provider's answer can be refused while the CLI keeps waiting (a wrong `state` at Codex): the output
     * or callback trace that proves it, if any.
     */
    rejectedWhileWaiting(output: string): boolean;
  };
  readonly credential: {
    /** The directory that is watched, relative to the home. */
    readonly directory: string;
    /** The files that make up the credential, relative to the home, and the mode they are installed with. */
    readonly files: readonly { readonly path: string; readonly mode: number; readonly required: boolean }[];
    check(files: readonly CredentialFile[]): CredentialCheck;
  };
  /** What a fresh home needs beside the credential so that the CLI starts logged in, without onboarding. */
  installs(files: readonly CredentialFile[]): readonly CredentialFile[];
  /** Offline check in the CLI machine; exit code 0 and `loggedIn(output)` mean that the CLI accepts the credential. */
  readonly verify: Command & { loggedIn(output: string): boolean };
  prompt(text: string): Command;
}
