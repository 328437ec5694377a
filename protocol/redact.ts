/** Removes what must not be kept from a line of a log, in the guest and on the host: queries of URLs, tokens, long opaque strings, terminal colours. */

const RULES: readonly (readonly [RegExp, string])[] = [
  [/\u001b\[[0-9;?]*[A-Za-z]/g, ''],
  [/(\b[a-z][a-z0-9+.-]*:\/\/[^\s"'<>?#]*)[?#][^\s"'<>]*/gi, '$1?[redacted]'],
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

/** `line` without secrets and cut to 2,000 characters. Machine and session ids (22 characters) stay readable. */
export function redact(line: string): string {
  let text = line.length > 8_000 ? line.slice(0, 8_000) : line;
  for (const [pattern, replacement] of RULES) text = text.replace(pattern, replacement);
  return text.length > 2_000 ? `${text.slice(0, 2_000)}…` : text;
}
