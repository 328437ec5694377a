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
    /** `closed`: the CLI is never written to. `open`: a pasted code is written to it as one line. */
    readonly stdin: 'closed' | 'open';
    /**
     * The log that the CLI itself keeps of a login, relative to the home. What it gains during a login is added to
     * the text that `explainFailure` and `rejectedWhileWaiting` see.
     */
    readonly trace?: string;
    /** Seconds from the start of the CLI until its URL must have appeared. */
    readonly urlDeadlineSeconds: number;
    /** Names the failure in the CLI's output and trace: the person denied, the answer was rejected, or unknown. */
    explainFailure(text: string): 'login_denied' | 'login_rejected' | 'login_cli_failed';
    /**
     * True when the output or trace proves that the CLI refused the provider's answer and yet keeps waiting (a wrong
     * `state` at Codex).
     */
    rejectedWhileWaiting(text: string): boolean;
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
