/** The first tables. Migrations are only ever added; the text of one that was released does not change. */
import { type Kysely, sql } from 'kysely';

async function up(db: Kysely<unknown>): Promise<void> {
  const statements = [
    sql`CREATE TABLE polydev.users (
      id text PRIMARY KEY,
      created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
    )`,
    sql`CREATE TABLE polydev.api_keys (
      id text PRIMARY KEY,
      user_id text NOT NULL REFERENCES polydev.users,
      role text NOT NULL CHECK (role IN ('operator', 'user')),
      name text NOT NULL,
      hash text NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
      created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      revoked_at timestamptz(3)
    )`,
    sql`CREATE TABLE polydev.web_sessions (
      hash text PRIMARY KEY CHECK (hash ~ '^[0-9a-f]{64}$'),
      user_id text NOT NULL REFERENCES polydev.users,
      role text NOT NULL CHECK (role IN ('operator', 'user')),
      created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      expires_at timestamptz(3) NOT NULL
    )`,
    sql`CREATE TABLE polydev.sign_in_links (
      hash text PRIMARY KEY CHECK (hash ~ '^[0-9a-f]{64}$'),
      user_id text NOT NULL REFERENCES polydev.users,
      role text NOT NULL CHECK (role IN ('operator', 'user')),
      created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      expires_at timestamptz(3) NOT NULL,
      used_at timestamptz(3)
    )`,
    sql`CREATE TABLE polydev.hosts (
      id text PRIMARY KEY,
      driver text NOT NULL,
      image text,
      seen_at timestamptz(3) NOT NULL
    )`,
    sql`CREATE TABLE polydev.machines (
      id text PRIMARY KEY,
      kind text NOT NULL CHECK (kind IN ('browser', 'cli')),
      realm text NOT NULL CHECK (realm IN ('internet', 'test')),
      user_id text NOT NULL REFERENCES polydev.users,
      session_id text,
      host_id text NOT NULL,
      state text NOT NULL,
      driver text,
      image text,
      address text,
      limits jsonb NOT NULL,
      display jsonb NOT NULL,
      stamps jsonb NOT NULL DEFAULT '[]',
      error jsonb,
      created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      state_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      started_at timestamptz(3),
      ended_at timestamptz(3)
    )`,
    sql`CREATE INDEX machines_by_user ON polydev.machines (user_id, created_at DESC)`,
    sql`CREATE UNIQUE INDEX machines_one_browser ON polydev.machines (session_id) WHERE kind = 'browser'`,
    sql`CREATE INDEX machines_by_age ON polydev.machines (created_at DESC)`,
    // A person has one CLI machine per realm: the second of two concurrent logins finds the first one's.
    sql`CREATE UNIQUE INDEX machines_one_cli ON polydev.machines (user_id, realm)
      WHERE kind = 'cli' AND state NOT IN ('destroying', 'destroyed', 'failed')`,
    sql`CREATE TABLE polydev.login_sessions (
      id text PRIMARY KEY,
      user_id text NOT NULL REFERENCES polydev.users,
      provider text NOT NULL,
      account text NOT NULL,
      realm text NOT NULL CHECK (realm IN ('internet', 'test')),
      state text NOT NULL,
      created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      expires_at timestamptz(3) NOT NULL,
      ended_at timestamptz(3),
      cleaned_at timestamptz(3),
      browser_machine_id text REFERENCES polydev.machines,
      cli_machine_id text REFERENCES polydev.machines,
      credential_id text,
      login_url text,
      verification text,
      error jsonb
    )`,
    sql`CREATE INDEX login_sessions_by_user ON polydev.login_sessions (user_id, created_at DESC)`,
    sql`CREATE INDEX login_sessions_by_age ON polydev.login_sessions (created_at DESC)`,
    sql`CREATE UNIQUE INDEX login_sessions_one_live ON polydev.login_sessions (user_id, provider, account, realm)
      WHERE state NOT IN ('completed', 'failed', 'cancelled', 'expired')`,
    sql`CREATE TABLE polydev.credentials (
      id text PRIMARY KEY,
      user_id text NOT NULL REFERENCES polydev.users,
      provider text NOT NULL,
      account text NOT NULL,
      realm text NOT NULL CHECK (realm IN ('internet', 'test')),
      version integer NOT NULL CHECK (version > 0),
      sealed bytea NOT NULL,
      facts jsonb NOT NULL,
      captured_by text,
      holder_machine_id text REFERENCES polydev.machines,
      created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      updated_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      UNIQUE (user_id, provider, account, realm)
    )`,
    sql`CREATE TABLE polydev.timeline (
      seq bigserial PRIMARY KEY,
      subject text NOT NULL CHECK (subject IN ('session', 'machine')),
      id text NOT NULL,
      kind text NOT NULL CHECK (kind IN ('state', 'checkpoint', 'step')),
      name text NOT NULL,
      at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
      duration_ms double precision,
      detail text,
      session_id text,
      machine_id text
    )`,
    sql`CREATE INDEX timeline_by_session ON polydev.timeline (session_id, seq)`,
    sql`CREATE INDEX timeline_by_machine ON polydev.timeline (machine_id, seq)`,
    sql`CREATE TABLE polydev.audit (
      seq bigserial PRIMARY KEY,
      who text NOT NULL,
      action text NOT NULL,
      target text NOT NULL,
      at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
    )`,
  ];
  for (const statement of statements) await statement.execute(db);
}

export const first = { up };
