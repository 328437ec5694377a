/**
 * What the test identity provider remembers, in one JSON file of its state directory, so that a restart loses nothing.
 *
 * Codes and tokens are kept as SHA-256 only: the file holds nothing that could be used.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

/** One visit of a person: from opening the sign-in page to Allow or Deny. */
const Visit = z.object({
  expires: z.number(),
  clientId: z.string(),
  /** Where the answer goes: the CLI's loopback listener, or the device that waits under this id. */
  goal: z.discriminatedUnion('kind', [
    z.object({
      kind: z.literal('redirect'),
      redirectUri: z.string(),
      state: z.string(),
      challenge: z.string(),
      scope: z.string(),
    }),
    z.object({ kind: z.literal('device'), deviceId: z.string() }),
  ]),
  email: z.string().optional(),
});

const Code = z.object({
  expires: z.number(),
  used: z.boolean(),
  clientId: z.string(),
  redirectUri: z.string(),
  challenge: z.string(),
  scope: z.string(),
  email: z.string(),
});

const Device = z.object({
  expires: z.number(),
  userCode: z.string(),
  clientId: z.string(),
  outcome: z.enum(['pending', 'denied', 'allowed', 'collected']),
  email: z.string().optional(),
});

const RefreshToken = z.object({
  family: z.string(),
  state: z.enum(['live', 'used', 'revoked']),
  clientId: z.string(),
  scope: z.string(),
  email: z.string(),
});

const Remembered = z.object({
  signingKey: z.string(),
  visits: z.record(z.string(), Visit),
  codes: z.record(z.string(), Code),
  devices: z.record(z.string(), Device),
  refreshTokens: z.record(z.string(), RefreshToken),
});

export type Visit = z.infer<typeof Visit>;
export type Code = z.infer<typeof Code>;
export type Device = z.infer<typeof Device>;
export type RefreshToken = z.infer<typeof RefreshToken>;
type Remembered = z.infer<typeof Remembered>;

/** SHA-256 of a code or token, hex: the form in which it is remembered. */
export function fingerprint(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

/** The file-backed memory. Every change is on disk, by rename, before the call returns. */
export class Store {
  readonly #path: string;
  readonly #data: Remembered;

  /** @throws when the state file exists and is not one that this version wrote. */
  constructor(dir: string) {
    this.#path = join(dir, 'state.json');
    this.#data = this.#read();
  }

  #read(): Remembered {
    try {
      return Remembered.parse(JSON.parse(readFileSync(this.#path, 'utf8')));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      const signingKey = randomBytes(32).toString('base64url');
      return { signingKey, visits: {}, codes: {}, devices: {}, refreshTokens: {} };
    }
  }

  /** Key under which access tokens are signed and recognised. */
  get signingKey(): string {
    return this.#data.signingKey;
  }

  /** Changes the memory and writes it. What ran out is dropped on the way. */
  change<T>(edit: (data: Remembered) => T): T {
    const result = edit(this.#data);
    const now = Date.now();
    for (const group of [this.#data.visits, this.#data.codes, this.#data.devices]) {
      for (const [key, { expires }] of Object.entries(group)) if (expires < now) delete group[key];
    }
    const temporary = `${this.#path}.new`;
    writeFileSync(temporary, JSON.stringify(this.#data), { mode: 0o600 });
    renameSync(temporary, this.#path);
    return result;
  }

  /** The visit under this id, unless it ran out. */
  visit(id: string): Visit | undefined {
    return live(this.#data.visits, id);
  }

  /** The authorization code, used or not, unless it ran out. */
  code(code: string): Code | undefined {
    return live(this.#data.codes, fingerprint(code));
  }

  /** The device that waits under this id, unless it ran out. */
  device(id: string): Device | undefined {
    return live(this.#data.devices, id);
  }

  /** Id of the device that shows this code to its person and still waits. */
  deviceIdOf(userCode: string): string | undefined {
    return Object.keys(this.#data.devices).find((id) => {
      const device = this.device(id);
      return device?.userCode === userCode && device.outcome === 'pending';
    });
  }

  /** The refresh token's record, in whatever state. */
  refreshToken(token: string): RefreshToken | undefined {
    const key = fingerprint(token);
    return Object.hasOwn(this.#data.refreshTokens, key) ? this.#data.refreshTokens[key] : undefined;
  }
}

function live<T extends { expires: number }>(group: Record<string, T>, key: string): T | undefined {
  const found = Object.hasOwn(group, key) ? group[key] : undefined;
  return found && found.expires >= Date.now() ? found : undefined;
}
