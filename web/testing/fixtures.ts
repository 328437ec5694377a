/**
 * testing/: what the page tests stand on: a small API with known data, a real X server and shell behind its streams,
 * and a real browser. Every object goes through the protocol's schemas, so it cannot drift from the contract.
 */
import { Credential, Host, Machine, Provider, Session, type TimelineEvent } from '../../protocol/api.ts';
import { type CheckState, DoctorReport } from '../../protocol/doctor.ts';
import { PolydevError } from '../../protocol/errors.ts';
import { newCredentialId, newMachineId, newSessionId, UserId } from '../../protocol/ids.ts';
import { machineActions, type SessionState, sessionActions } from '../../protocol/lifecycles.ts';
import { SETTINGS_DEFAULTS } from '../../protocol/settings.ts';

export const PERSON = UserId.parse('ada@example.org');
export const IMAGE = '4f1c9a7be2d0835a';

const iso = (ms: number): string => new Date(ms).toISOString();
const HOUR = 3_600_000;

/** The first event of a failed login is this long ago, ms. */
const FAILED_AGO = 3 * HOUR;

/** Everything the fake API starts with. A fresh copy each time: tests change it. */
export function fixtures(now = Date.now()) {
  const cliMachineId = newMachineId();
  const failedMachineId = newMachineId();
  const failedSessionId = newSessionId();
  const failedAt = now - FAILED_AGO;

  const stalled = new PolydevError(
    'machine_boot_stalled',
    'The agent stopped answering 4.1 s after its start: the desktop did not come up within its budget.',
    {
      lines: [
        '[    0.212] polydev-agent: listening on the channel',
        '[    0.230] polydev-agent: starting Xvnc :1 -geometry 1280x720',
        '[    0.261] Xvnc: _XSERVTransmkdir: Owner of /tmp/.X11-unix should be set to root',
        '[    0.262] Xvnc: Fatal server error: Cannot establish any listening sockets',
        '[    0.263] polydev-agent: desktop: Xvnc exited with code 1',
      ],
    },
  ).toReport();

  const credential = Credential.parse({
    id: newCredentialId(),
    userId: PERSON,
    provider: 'codex',
    account: 'default',
    realm: 'internet',
    version: 3,
    facts: {
      accountId: 'acct-7b1d',
      email: 'ada@example.org',
      subscription: 'plus',
      accessExpiresAt: iso(now + 9 * 24 * HOUR),
    },
    createdAt: iso(now - 12 * 24 * HOUR),
    updatedAt: iso(now - HOUR),
    holderMachineId: cliMachineId,
  });

  const machines = [
    Machine.parse({
      id: cliMachineId,
      kind: 'cli',
      realm: 'internet',
      userId: PERSON,
      sessionId: null,
      state: 'ready',
      driver: 'namespace',
      image: IMAGE,
      address: '10.80.0.12',
      createdAt: iso(now - 12 * 24 * HOUR),
      endedAt: null,
      pooled: false,
      removeAt: null,
      stamps: [
        { checkpoint: 'hypervisor', at: iso(now - 12 * 24 * HOUR + 84) },
        { checkpoint: 'kernel', at: iso(now - 12 * 24 * HOUR + 84) },
        { checkpoint: 'init', at: iso(now - 12 * 24 * HOUR + 131) },
        { checkpoint: 'agent', at: iso(now - 12 * 24 * HOUR + 317) },
        { checkpoint: 'provider', at: iso(now - 12 * 24 * HOUR + 402) },
      ],
      error: null,
      health: { state: 'healthy', since: iso(now - 12 * 24 * HOUR + 20_000), diagnosis: null },
      actions: [...machineActions('cli', 'ready')],
    }),
    Machine.parse({
      id: failedMachineId,
      kind: 'browser',
      realm: 'internet',
      userId: PERSON,
      sessionId: failedSessionId,
      state: 'failed',
      driver: 'namespace',
      image: IMAGE,
      address: '10.80.0.14',
      createdAt: iso(failedAt),
      endedAt: iso(failedAt + 4_420),
      pooled: false,
      removeAt: iso(now + HOUR),
      stamps: [
        { checkpoint: 'hypervisor', at: iso(failedAt + 91) },
        { checkpoint: 'kernel', at: iso(failedAt + 91) },
        { checkpoint: 'init', at: iso(failedAt + 140) },
        { checkpoint: 'agent', at: iso(failedAt + 322) },
      ],
      error: stalled,
      health: null,
      actions: [...machineActions('browser', 'failed')],
    }),
  ];

  const failedEvents: [number, TimelineEvent['subject'], TimelineEvent['kind'], string][] = [
    [0, 'session', 'state', 'queued'],
    [38, 'session', 'state', 'preparing'],
    [40, 'machine', 'state', 'creating'],
    [91, 'machine', 'checkpoint', 'hypervisor'],
    [91, 'machine', 'checkpoint', 'kernel'],
    [140, 'machine', 'checkpoint', 'init'],
    [322, 'machine', 'checkpoint', 'agent'],
    [4_420, 'machine', 'state', 'failed'],
    [4_431, 'session', 'state', 'failed'],
  ];
  const failedSession = Session.parse({
    id: failedSessionId,
    userId: PERSON,
    provider: 'codex',
    account: 'default',
    realm: 'internet',
    state: 'failed',
    createdAt: iso(failedAt),
    expiresAt: iso(failedAt + 600_000),
    endedAt: iso(failedAt + 4_431),
    browserMachineId: failedMachineId,
    cliMachineId: null,
    credentialId: null,
    loginUrl: null,
    liveViewPath: `/sessions/${failedSessionId}/desktop`,
    verification: null,
    error: stalled,
    actions: [],
    timeline: failedEvents.map(([offset, subject, kind, name], index) => ({
      seq: index + 1,
      at: iso(failedAt + offset),
      subject,
      id: subject === 'session' ? failedSessionId : failedMachineId,
      kind,
      name,
      durationMs: null,
      detail: null,
    })),
  });

  const hosts = [
    Host.parse({
      id: 'host-1',
      driver: 'namespace',
      image: IMAGE,
      ok: true,
      problems: [],
      machines: 2,
      memoryMiB: { total: 15_990, available: 11_204 },
      diskMiB: { total: 101_000, available: 74_300 },
      promisedDiskMiB: { used: 18_432, allowed: 404_000 },
      pool: { wanted: 2, ready: 1, starting: 1, problem: null },
      evidence: { machines: 12, mib: 9, maxMachines: 200, maxMib: 512 },
      load: { one: 0.5, cpus: 8 },
      addresses: { used: 2, size: 61 },
      recovered: { adopted: 0, ended: 0 },
    }),
    Host.parse({
      id: 'host-2',
      driver: 'namespace',
      image: null,
      ok: false,
      problems: ['image_missing: there is no golden image on this host. Build it: ./polydev image build.'],
      machines: 0,
      memoryMiB: { total: 7_950, available: 6_102 },
      diskMiB: { total: 40_000, available: 2_900 },
      promisedDiskMiB: { used: 0, allowed: 160_000 },
      pool: { wanted: 0, ready: 0, starting: 0, problem: null },
      evidence: { machines: 0, mib: 0, maxMachines: 200, maxMib: 512 },
      load: { one: 0.1, cpus: 4 },
      addresses: { used: 0, size: 61 },
      recovered: { adopted: 0, ended: 0 },
    }),
  ];

  const check = (name: string, state: CheckState, evidence: string, remedy: string | null = null) => ({
    name,
    state,
    evidence,
    remedy,
  });
  const doctor = (id: string): DoctorReport => {
    const checks = [
      check('root', 'ok', 'runs as root'),
      check('kernel', 'ok', '6.12.9'),
      check('memory', 'ok', '11204 of 15990 MiB are available'),
      ...(id === 'host-1'
        ? []
        : [
            check(
              'kvm',
              'warn',
              'forbidden: /dev/kvm does not open (EACCES)',
              'chmod 0660 /dev/kvm; chown root:kvm /dev/kvm',
            ),
            check('image', 'fail', 'there is none in /var/cache/polydev/images', './polydev image build'),
          ]),
      check(
        'hypervisor',
        'ok',
        'not installed; only virtual machines need it',
        'apt-get install qemu-system-x86',
      ),
    ];
    return DoctorReport.parse({ at: iso(now), ok: id === 'host-1', checks });
  };

  return {
    doctor,
    settings: { ...SETTINGS_DEFAULTS, keepFailed: true },
    credentials: [credential],
    machines,
    sessions: [failedSession],
    hosts,
    providers: (credentials: Credential[]): Provider[] => [
      Provider.parse({ id: 'codex', title: 'OpenAI Codex', connected: credentials }),
    ],
  };
}

/** A login that has just been started. */
export function newSession(realm: 'internet' | 'test', account: string, now = Date.now()): Session {
  const id = newSessionId();
  return Session.parse({
    id,
    userId: PERSON,
    provider: 'codex',
    account,
    realm,
    state: 'queued' satisfies SessionState,
    createdAt: iso(now),
    expiresAt: iso(now + 600_000),
    endedAt: null,
    browserMachineId: null,
    cliMachineId: null,
    credentialId: null,
    loginUrl: null,
    liveViewPath: `/sessions/${id}/desktop`,
    verification: null,
    error: null,
    actions: [...sessionActions('queued')],
    timeline: [],
  });
}
