/**
 * The test certificate authority and the one server certificate of the test identity provider.
 *
 * node:crypto cannot create X.509 certificates, so the host's `openssl` does, through argv arrays. The authority's key
 * exists only while the certificate is being made: once this returns, nobody can issue another one in its name.
 */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const OPENSSL_DEADLINE_MS = 20_000;
const DAYS = 30;
const RENEW_WITHIN_MS = 24 * 3_600_000;

/** PEM texts of the server, and where the authority's certificate was written. */
export interface Certificates {
  key: string;
  cert: string;
  ca: string;
  caPath: string;
}

/** openssl configuration for an authority that can vouch for `hosts` only (name constraints, critical). */
function authorityConfig(hosts: string[], name: string): string {
  return [
    '[req]',
    'prompt = no',
    'distinguished_name = dn',
    'x509_extensions = ext',
    '[dn]',
    `CN = ${name}`,
    '[ext]',
    'basicConstraints = critical, CA:TRUE, pathlen:0',
    'keyUsage = critical, keyCertSign, cRLSign',
    'subjectKeyIdentifier = hash',
    'nameConstraints = critical, @names',
    '[names]',
    ...hosts.map((host, i) => `permitted;DNS.${i} = ${host}`),
    '',
  ].join('\n');
}

function leafExtensions(hosts: string[]): string {
  return [
    'basicConstraints = critical, CA:FALSE',
    'keyUsage = critical, digitalSignature',
    'extendedKeyUsage = serverAuth',
    'subjectKeyIdentifier = hash',
    'authorityKeyIdentifier = keyid',
    `subjectAltName = ${hosts.map((host) => `DNS:${host}`).join(', ')}`,
    '',
  ].join('\n');
}

async function readKept(dir: string, hosts: string[]): Promise<Certificates | undefined> {
  const caPath = join(dir, 'ca.pem');
  try {
    const [key, cert, ca] = await Promise.all([
      readFile(join(dir, 'server.key'), 'utf8'),
      readFile(join(dir, 'server.pem'), 'utf8'),
      readFile(caPath, 'utf8'),
    ]);
    const leaf = new X509Certificate(cert);
    const issuer = new X509Certificate(ca);
    const usable =
      leaf.verify(issuer.publicKey) &&
      leaf.validToDate.getTime() > Date.now() + RENEW_WITHIN_MS &&
      hosts.every((host) => leaf.checkHost(host, { subject: 'never' }) !== undefined);
    return usable ? { key, cert, ca, caPath } : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * Certificates for `hosts`, in `dir` (`ca.pem`, `server.pem`, `server.key`; the caller made `dir` with mode 0700).
 *
 * A fresh directory gets a fresh authority. One that already holds a certificate for all hosts, good for another day, keeps
 * it: a provider that is restarted while machines trust it must still be trusted.
 *
 * @throws when `openssl` is missing, fails, or takes longer than 20 s.
 */
export async function certificates(dir: string, hosts: string[], signal: AbortSignal): Promise<Certificates> {
  const kept = await readKept(dir, hosts);
  if (kept) return kept;
  const work = await mkdtemp(join(dir, 'making-'));
  const at = (name: string) => join(work, name);
  const openssl = (...args: string[]) =>
    run('openssl', args, { signal: AbortSignal.any([signal, AbortSignal.timeout(OPENSSL_DEADLINE_MS)]) });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-noenc'];
  try {
    // A name of its own keeps trust stores that key by subject from confusing two starts.
    const name = `Polydev test CA ${work.slice(-6)}`;
    await writeFile(at('ca.cnf'), authorityConfig(hosts, name), { mode: 0o600 });
    await writeFile(at('leaf.ext'), leafExtensions(hosts), { mode: 0o600 });
    await openssl(
      ...['req', '-x509', '-config', at('ca.cnf'), ...newKey, '-sha256', '-days', String(DAYS)],
      ...['-keyout', at('ca.key'), '-out', at('ca.pem')],
    );
    await openssl(
      ...['req', '-new', '-config', at('ca.cnf'), ...newKey, '-subj', '/CN=Polydev test identity provider'],
      ...['-keyout', at('server.key'), '-out', at('server.csr')],
    );
    await openssl(
      ...[
        'x509',
        '-req',
        '-in',
        at('server.csr'),
        '-CA',
        at('ca.pem'),
        '-CAkey',
        at('ca.key'),
        '-CAcreateserial',
      ],
      ...['-sha256', '-days', String(DAYS), '-extfile', at('leaf.ext'), '-out', at('server.pem')],
    );
    for (const file of ['server.key', 'server.pem', 'ca.pem']) await rename(at(file), join(dir, file));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const made = await readKept(dir, hosts);
  if (!made) throw new Error(`openssl made a certificate in ${dir} that does not cover ${hosts.join(', ')}`);
  return made;
}
