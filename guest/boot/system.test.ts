import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { newMachineId } from '../../protocol/ids.ts';
import type { GuestConfig } from '../../protocol/machine.ts';
import { AgentLog } from '../log.ts';
import { certificates, setUpSystem } from './system.ts';

const PEM = `-----BEGIN CERTIFICATE-----
TUlJQg==
-----END CERTIFICATE-----
`;
const config: GuestConfig = {
  version: 1,
  machineId: newMachineId(),
  kind: 'browser',
  realm: 'test',
  hostname: 'm-test',
  display: { width: 1280, height: 800 },
  agentTokenHash: '00',
  dns: ['10.0.0.1', '10.0.0.2'],
  ca: PEM,
  listen: { port: 8080 },
};

let root: string;
beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), 'polydev-system-'));
  mkdirSync(path.join(root, 'etc/ssl/certs'), { recursive: true });
  writeFileSync(path.join(root, 'etc/ssl/certs/ca-certificates.crt'), 'EARLIER\n');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));
const read = (file: string) => readFileSync(path.join(root, file), 'utf8');

describe('setUpSystem', () => {
  it('writes resolvers, names and authorities, and the authorities once', () => {
    const log = new AgentLog(() => undefined);
    setUpSystem(config, log, root);
    setUpSystem(config, log, root);
    expect(read('etc/resolv.conf')).toBe(
      'nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions timeout:2 attempts:3\n',
    );
    expect(read('etc/hosts')).toContain('127.0.1.1 m-test\n');
    expect(read('etc/ssl/certs/ca-certificates.crt')).toBe(`EARLIER\n${PEM}`);
    expect(JSON.parse(read('etc/chromium/policies/managed/polydev-ca.json'))).toEqual({
      CACertificates: ['TUlJQg=='],
    });
    expect(log.text()).toBe('');
  });

  it('leaves resolvers and authorities alone that nobody gave', () => {
    const { dns: _dns, ca: _ca, ...bare } = config;
    setUpSystem(bare, new AgentLog(() => undefined), root);
    expect(() => read('etc/resolv.conf')).toThrow();
    expect(() => read('etc/chromium/policies/managed/polydev-ca.json')).toThrow();
  });

  it('says what it could not do and does the rest', () => {
    rmSync(path.join(root, 'etc/ssl'), { recursive: true });
    const log = new AgentLog(() => undefined);
    setUpSystem(config, log, root);
    expect(log.text()).toMatch(/boot: authorities: ENOENT/);
    expect(read('etc/hosts')).toContain('m-test');
  });
});

it('certificates finds every certificate of a bundle and nothing else', () => {
  const openssl =
    'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test -keyout /dev/null';
  const pem = execFileSync('openssl', openssl.split(' '), {
    encoding: 'utf8',
    timeout: 20_000,
    stdio: 'pipe',
  });
  const der = execFileSync('openssl', ['x509', '-outform', 'DER'], {
    input: pem,
    timeout: 20_000,
    stdio: 'pipe',
  });
  expect(certificates(`# a comment\n${pem}\n${PEM}`)).toEqual([der.toString('base64'), 'TUlJQg==']);
});
