import type { Host } from '../../protocol/api.ts';
import type { CheckState, DoctorCheck, DoctorReport } from '../../protocol/doctor.ts';
import { timeOfDay } from '../data/clock.ts';
import { useJson } from '../data/resource.ts';
import { CHECK_WORDS } from '../data/words.ts';
import { Badge, Link, Loading, PageHead, useTitle } from '../widgets/basics.tsx';
import { ProblemPanel } from '../widgets/problem-panel.tsx';

/** Everything that a machine needs of each host, tried now: what does not work first, with the command that mends it. */
export function DoctorPage() {
  useTitle('Doctor');
  const { value, problem } = useJson<{ hosts: Host[] }>('/api/hosts');
  return (
    <>
      <PageHead title="Doctor">
        <span className="page-head-end">
          <Link to={{ page: 'hosts' }} className="button button-plain">
            Hosts
          </Link>
        </span>
      </PageHead>
      {problem !== undefined && <ProblemPanel title="The hosts cannot be listed" problem={problem} />}
      {value === undefined && problem === undefined && <Loading what="the hosts" lines={2} />}
      {value?.hosts.map(({ id }) => (
        <Examined key={id} id={id} />
      ))}
    </>
  );
}

function Examined({ id }: { readonly id: string }) {
  const { value: report, problem, reload } = useJson<DoctorReport>(`/api/hosts/${id}/doctor`);
  const title = `host-${id}`;
  return (
    <section aria-labelledby={title} className="block">
      <div className="page-head">
        <h2 id={title}>Host {id}</h2>
        {report !== undefined && <Verdict report={report} />}
        <span className="page-head-end">
          <button type="button" className="button button-plain" onClick={reload}>
            Examine again
          </button>
        </span>
      </div>
      {problem !== undefined && <ProblemPanel title="The host could not be examined" problem={problem} />}
      {report === undefined && problem === undefined && (
        <>
          <p className="hint">Everything is tried now. This takes some seconds.</p>
          <Loading what="the examination" lines={6} />
        </>
      )}
      {report !== undefined && <Checks report={report} />}
    </section>
  );
}

function Verdict({ report }: { readonly report: DoctorReport }) {
  const count = (state: CheckState): number => report.checks.filter((check) => check.state === state).length;
  const [failed, warnings] = [count('fail'), count('warn')];
  return (
    <span role="status">
      {failed > 0 ? (
        <Badge tone="bad">{failed === 1 ? 'One check fails' : `${failed} checks fail`}</Badge>
      ) : warnings > 0 ? (
        <Badge tone="attention">{warnings === 1 ? 'One warning' : `${warnings} warnings`}</Badge>
      ) : (
        <Badge tone="good">Machines can start</Badge>
      )}
    </span>
  );
}

/** What comes first. */
const ORDER: readonly CheckState[] = ['fail', 'warn', 'unknown'];

function Checks({ report }: { readonly report: DoctorReport }) {
  const trouble = ORDER.flatMap((state) => report.checks.filter((check) => check.state === state));
  const works = report.checks.filter(({ state }) => state === 'ok');
  return (
    <>
      {trouble.length > 0 && (
        <ul className="list">
          {trouble.map((check) => (
            <Trouble key={check.name} check={check} />
          ))}
        </ul>
      )}
      <details className="more" open={trouble.length === 0}>
        <summary>What works ({works.length})</summary>
        <dl className="checks">
          {works.map(({ name, evidence, remedy }) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                {evidence}
                {remedy !== null && (
                  <span className="hint">
                    {' '}
                    To have it: <code>{remedy}</code>
                  </span>
                )}
              </dd>
            </div>
          ))}
        </dl>
      </details>
      <p className="hint">
        Tried at <time dateTime={report.at}>{timeOfDay(report.at)}</time>. The same in a terminal:{' '}
        <code>./polydev doctor</code>
      </p>
    </>
  );
}

function Trouble({ check }: { readonly check: DoctorCheck }) {
  const { words, tone } = CHECK_WORDS[check.state];
  return (
    <li className="list-item list-item-wrap">
      <div className="list-main">
        <span className="list-title">{check.name}</span>
        <span>{check.evidence}</span>
      </div>
      <Badge tone={tone}>{words}</Badge>
      {check.remedy !== null && (
        <div className="mend">
          <span className="hint">{check.state === 'unknown' ? 'To find out:' : 'To mend it:'}</span>
          <pre className="lines proof">{check.remedy}</pre>
        </div>
      )}
    </li>
  );
}
