/**
 * The names the test identity provider answers for, per CLI provider.
 *
 * A machine started for a test gets these names in its own hosts view; nothing else resolves to it.
 */

/** Hostnames impersonated for each provider (exact names, no wildcards, no port). Observed with the genuine CLIs. */
export const IDP_HOSTS = {
  codex: ['auth.openai.com', 'chatgpt.com'],
} as const satisfies Record<string, readonly string[]>;

/** Every impersonated hostname, in a fixed order, without repeats. */
export function allIdpHosts(): string[] {
  return [...new Set(Object.values(IDP_HOSTS).flat())];
}
