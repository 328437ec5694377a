/** Removes what must not be kept from a line of a log, in the guest and on the host: queries of URLs, tokens, long opaque strings, terminal colours. */

/** Each takes time in proportion to the text, whatever a guest puts into it. */
type Rule = readonly [RegExp, string | ((found: string) => string)];

const RULES: readonly Rule[] = [
  [/\u001b\[[0-9;?]*[A-Za-z]/g, ''],
  [/(\b[a-z][a-z0-9+.-]{0,20}:\/\/[^\s"'<>?#]{0,2000})[?#][^\s"'<>]*/gi, '$1?[redacted]'],
  [/\beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,4}/g, '[token]'],
  [/\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}/gi, '$1 [redacted]'],
  [
    /\b((?:access|refresh|id)[_-]?token|authorization|api[_-]?key|secret|password|code_verifier)(["']?\s*[:=]\s*["']?)[^\s"',&}]+/gi,
    '$1$2[redacted]',
  ],
  // systemd says how a process ended with code=exited, killed or dumped.
  [/\b(code|state|nonce)=(?!(?:exited|killed|dumped),)[^\s"',&}]+/gi, '$1=[redacted]'],
  [/\bsk-[A-Za-z0-9_-]{6,}/g, '[token]'],
  [/[A-Za-z0-9_-]{28,}/g, '[redacted]'],
];

const MIXED = [/[a-z]/, /[A-Z]/, /[0-9]/];

/**
 * A console is a kernel's and a systemd's, whose long names prove what is wrong: there, opaque is what has capitals, small letters and
 * digits. Its colours stay.
 */
const CONSOLE_RULES: readonly Rule[] = [
  ...RULES.slice(1, -1),
  [/[A-Za-z0-9_-]{32,}/g, (found) => (MIXED.every((kind) => kind.test(found)) ? '[redacted]' : found)],
];

const replaced = (text: string, rules: readonly Rule[]): string =>
  rules.reduce(
    (now, [pattern, by]) => (typeof by === 'string' ? now.replace(pattern, by) : now.replace(pattern, by)),
    text,
  );

/** `line` without secrets and cut to 2,000 characters. Machine and session ids (22 characters) stay readable. */
export function redact(line: string): string {
  const text = replaced(line.length > 8_000 ? line.slice(0, 8_000) : line, RULES);
  return text.length > 2_000 ? `${text.slice(0, 2_000)}…` : text;
}

/** Everything that a guest printed, without secrets: what it prints includes what services and the person's programs log. */
export const redactConsole = (text: string): string => replaced(text, CONSOLE_RULES);
