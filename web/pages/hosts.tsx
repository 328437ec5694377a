import type { Host } from '../../protocol/api.ts';
import { gibibytes } from '../data/clock.ts';
import { useJson } from '../data/resource.ts';
import { Badge, Link, Loading, PageHead, useTitle } from '../widgets/basics.tsx';
import { CleanUpPanel } from '../widgets/clean-up-panel.tsx';
import { ProblemPanel } from '../widgets/problem-panel.tsx';

const REFRESH_MS = 5_000;

export function HostsPage() {
  useTitle('Hosts');
  const { value, problem } = useJson<{ hosts: Host[] }>('/api/hosts', REFRESH_MS);
  return (
    <>
      <PageHead title="Hosts">
        <span className="page-head-end">
          <Link to={{ page: 'doctor' }} className="button button-plain">
            Doctor
          </Link>
        </span>
      </PageHead>
      {problem !== undefined && <ProblemPanel title="The hosts cannot be shown" problem={problem} />}
      {value === undefined && problem === undefined && <Loading what="the hosts" lines={4} />}
      {value?.hosts.length === 0 && <p className="empty">No host is known. ./polydev up starts one.</p>}
      <ul className="cards">
        {value?.hosts.map((host) => (
          <HostCard key={host.id} host={host} />
        ))}
      </ul>
      <CleanUpPanel />
    </>
  );
}

function HostCard({ host }: { readonly host: Host }) {
  return (
    <li className="card">
      <h2>
        {host.id}{' '}
        <Badge tone={host.ok ? 'good' : 'bad'}>{host.ok ? 'Takes machines' : 'Takes no machines'}</Badge>
      </h2>
      {host.problems.length > 0 && (
        <ul className="problems">
          {host.problems.map((text) => (
            <li key={text}>{text}</li>
          ))}
        </ul>
      )}
      <dl className="facts">
        <dt>Driver</dt>
        <dd>
          <code>{host.driver}</code>
        </dd>
        <dt>Golden image</dt>
        <dd>{host.image === null ? 'none yet' : <code>{host.image}</code>}</dd>
        <dt>Machines</dt>
        <dd>{host.machines}</dd>
        <Share name="Memory" amount={host.memoryMiB} />
        <Share name="Disk" amount={host.diskMiB} />
        {host.promisedDiskMiB !== null && (
          <>
            <dt>Promised to machines</dt>
            <dd>
              {gibibytes(host.promisedDiskMiB.used)} of {gibibytes(host.promisedDiskMiB.allowed)}
            </dd>
          </>
        )}
        {host.pool.wanted + host.pool.ready > 0 && (
          <>
            <dt>Warm machines</dt>
            <dd>
              {host.pool.ready} of {host.pool.wanted} ready
              {host.pool.starting > 0 && `, ${host.pool.starting} starting`}
              {host.pool.problem !== null && `; no more, because ${host.pool.problem}`}
            </dd>
          </>
        )}
        {host.evidence !== null && (
          <>
            <dt>Evidence</dt>
            <dd>
              {host.evidence.machines} of {host.evidence.maxMachines} machines, {host.evidence.mib} of{' '}
              {host.evidence.maxMib} MiB
            </dd>
          </>
        )}
      </dl>
    </li>
  );
}

function Share({ name, amount }: { readonly name: string; readonly amount: Host['memoryMiB'] }) {
  const used = amount.total - amount.available;
  return (
    <>
      <dt>{name}</dt>
      <dd>
        {gibibytes(amount.available)} free of {gibibytes(amount.total)}
        <meter
          min={0}
          max={amount.total}
          value={used}
          high={amount.total * 0.9}
          aria-label={`${name} in use`}
        />
      </dd>
    </>
  );
}
