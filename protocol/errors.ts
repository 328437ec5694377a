/**
 * The closed catalogue of errors. A code is never reused and never removed; add at the end of its group.
 * `fault` says whose turn it is: the `user` (person or caller), the `operator` of this host, or the `system` (us).
 */
import { z } from 'zod';

interface ErrorEntry {
  readonly status: number;
  readonly fault: 'user' | 'operator' | 'system';
  /** What to do, one sentence. */
  readonly remedy: string;
}

const entry = (status: number, fault: ErrorEntry['fault'], remedy: string): ErrorEntry => ({
  status,
  fault,
  remedy,
});

export const ERRORS = {
  // Calls
  bad_request: entry(400, 'user', 'Correct the fields named in the message and send the request again.'),
  unauthenticated: entry(
    401,
    'user',
    'Send an API key as "Authorization: Bearer <key>" or open the sign-in link that `./polydev up` printed.',
  ),
  forbidden: entry(403, 'user', 'Use an identity that owns this object.'),
  not_found: entry(404, 'user', 'Check the id; finished objects stay listed, removed ones do not.'),
  conflict: entry(409, 'user', 'Read the current state of the object and try again.'),
  ticket_invalid: entry(401, 'user', 'Ask for a new ticket: each opens one stream and lives for a minute.'),
  rate_limited: entry(429, 'user', 'Wait for the time in the Retry-After header.'),
  internal: entry(500, 'system', 'Look at the controller log for the request id given here, and report it.'),
  not_ready: entry(503, 'operator', 'Look at /ready: it names the part that is missing.'),
  illegal_transition: entry(409, 'system', 'Read the current state; the action does not fit it.'),

  // Set-up of a host
  missing_packages: entry(
    500,
    'operator',
    'Install the packages named in the message, as root: apt-get install --no-install-recommends <packages>.',
  ),
  not_root: entry(
    500,
    'operator',
    'Run the command as root: machines need namespaces, mounts and network interfaces.',
  ),
  already_running: entry(
    409,
    'operator',
    'Another instance uses this data directory; stop it, or choose another with --data.',
  ),
  configuration_invalid: entry(500, 'operator', 'Correct the setting named in the message.'),
  database_unreachable: entry(503, 'operator', 'Check DATABASE_URL and that the server accepts connections.'),
  child_died: entry(500, 'system', 'Look at the log named in the message.'),

  // Golden image
  image_missing: entry(503, 'operator', 'Build it: ./polydev image build.'),
  image_build_failed: entry(
    500,
    'operator',
    'Read the stage and the last lines in the message; run ./polydev image build again, it resumes.',
  ),
  image_verification_failed: entry(
    500,
    'operator',
    'Each failed check names the file and its remedy; the image was not made current.',
  ),

  // Machines
  driver_unusable: entry(503, 'operator', 'Run ./polydev doctor: it says what this host lacks.'),
  host_unreachable: entry(503, 'operator', 'Check that the host service runs: ./polydev up starts it.'),
  machine_start_failed: entry(
    500,
    'operator',
    'Read the lines in the message and the evidence of the machine.',
  ),
  machine_hibernate_failed: entry(
    500,
    'operator',
    'The machine runs on. Read the message and the evidence of the machine; free disk space when it lacks it.',
  ),
  machine_resume_failed: entry(
    500,
    'operator',
    'Start the machine: it boots from its disk. Read the message and the evidence for why its memory was lost.',
  ),
  machine_exited: entry(
    500,
    'system',
    'Read the console and the exit report in the evidence of the machine.',
  ),
  machine_boot_stalled: entry(
    500,
    'system',
    'The checklist shows the last checkpoint reached; read the console from there.',
  ),
  machine_unreachable: entry(502, 'system', 'The machine does not answer on its channel; read its console.'),
  addresses_exhausted: entry(
    503,
    'operator',
    'Remove machines that are not needed or choose a larger subnet.',
  ),
  network_setup_failed: entry(500, 'operator', 'Read the command and its output in the message.'),
  host_out_of_space: entry(
    507,
    'operator',
    'Free disk space under the data directory, or remove machines: their disks are promised space.',
  ),
  agent_unauthorized: entry(
    502,
    'system',
    'The agent refused the token of this machine; destroy the machine.',
  ),
  agent_version_wrong: entry(
    502,
    'system',
    "Something changed the machine's disk, or its image: destroy the machine and start again.",
  ),
  desktop_failed: entry(
    500,
    'system',
    'The X server or the browser did not start; the lines are in the agent log.',
  ),
  controller_restarted: entry(
    500,
    'system',
    'The controller was restarted in the middle of this and could not go on; start again.',
  ),

  quota_exceeded: entry(
    429,
    'user',
    'Remove machines that are not needed, or ask the operator for a larger quota (./polydev settings).',
  ),

  // Logins
  login_no_url: entry(
    502,
    'system',
    "The CLI printed no login URL in time; its output is in the session's evidence.",
  ),
  login_denied: entry(422, 'user', 'Consent was denied on the provider page; start again and allow it.'),
  login_rejected: entry(
    422,
    'user',
    "The provider's answer did not fit this login (for example a wrong state); start again.",
  ),
  login_cli_failed: entry(
    502,
    'system',
    "The CLI ended without a login; its output is in the session's evidence.",
  ),
  login_expired: entry(422, 'user', 'Nobody signed in in time; start again.'),
  login_cancelled: entry(409, 'user', 'The session was cancelled; start again when wanted.'),
  login_in_progress: entry(
    409,
    'user',
    'A login of this provider is under way for this person; finish or cancel it first.',
  ),
  credential_incomplete: entry(
    502,
    'system',
    'The CLI wrote a credential without the tokens it needs; start again.',
  ),
  credential_missing: entry(404, 'user', 'Connect the provider first.'),
  credential_install_failed: entry(
    500,
    'system',
    'The credential is stored, but could not be installed in the CLI machine; start the machine again.',
  ),
  credential_verify_failed: entry(
    502,
    'system',
    'The CLI does not accept the installed credential; connect the provider again.',
  ),
  test_provider_failed: entry(
    500,
    'operator',
    'The test identity provider did not start; its log is named in the message.',
  ),

  // Vault
  vault_key_missing: entry(
    500,
    'operator',
    'Give the master key by file or environment; without it nothing stored can be opened.',
  ),
  vault_cannot_open: entry(
    500,
    'operator',
    'The stored blob does not open with this master key: was the key changed or the row moved?',
  ),
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;
export const ErrorCode = z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]);

/** How an error travels in JSON: API replies, session rows, host and agent replies. Never holds a secret. */
export const ErrorReport = z.object({
  code: ErrorCode,
  message: z.string(),
  remedy: z.string(),
  fault: z.enum(['user', 'operator', 'system']),
  /** The lines that prove it, newest last; at most 40. */
  lines: z.array(z.string()).max(40).optional(),
  requestId: z.string().optional(),
});
export type ErrorReport = z.infer<typeof ErrorReport>;

/** The one error class that crosses boundaries. `message` says what happened, the catalogue says what to do. */
export class PolydevError extends Error {
  readonly code: ErrorCode;
  readonly lines: readonly string[];

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; lines?: readonly string[] } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'PolydevError';
    this.code = code;
    this.lines = (options.lines ?? []).slice(-40);
  }

  get status(): number {
    return ERRORS[this.code].status;
  }

  toReport(): ErrorReport {
    const { remedy, fault } = ERRORS[this.code];
    return {
      code: this.code,
      message: this.message,
      remedy,
      fault,
      ...(this.lines.length > 0 ? { lines: [...this.lines] } : {}),
    };
  }

  /** Rebuilds the error from another process's reply; an unknown shape becomes `fallback` with the text kept. */
  static fromReport(body: unknown, fallback: ErrorCode = 'internal'): PolydevError {
    const parsed = z.object({ error: ErrorReport }).safeParse(body);
    if (parsed.success) {
      const { code, message, lines } = parsed.data.error;
      return new PolydevError(code, message, lines === undefined ? {} : { lines });
    }
    return new PolydevError(fallback, `unexpected reply: ${JSON.stringify(body)?.slice(0, 500)}`);
  }

  /** Any thrown value as a PolydevError, the original kept as `cause`. */
  static from(thrown: unknown, fallback: ErrorCode = 'internal'): PolydevError {
    if (thrown instanceof PolydevError) return thrown;
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return new PolydevError(fallback, message, { cause: thrown });
  }
}
