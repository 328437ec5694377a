import type { Credential, Provider } from '../../protocol/api.ts';
import { remove } from '../data/api.ts';
import { dateTime } from '../data/clock.ts';
import { useJson } from '../data/resource.ts';
import { humanise } from '../data/words.ts';
import { ConfirmButton, Link, Loading, PageHead, useTitle } from '../widgets/basics.tsx';
import { ProblemPanel } from '../widgets/problem-panel.tsx';

const REFRESH_MS = 5_000;

/** What the vault holds, without what it holds: metadata only ever leaves it. */
export function CredentialsPage() {
  useTitle('Credentials');
  const credentials = useJson<{ credentials: Credential[] }>('/api/credentials', REFRESH_MS);
  const providers = useJson<{ providers: Provider[] }>('/api/providers');
  const titles = new Map(providers.value?.providers.map(({ id, title }) => [id, title]));
  const all = credentials.value?.credentials;
  return (
    <>
      <PageHead title="Credentials" />
      <p className="lead">
        Stored encrypted. This is all that can be seen of them; the tokens are never shown.
      </p>
      {credentials.problem !== undefined && (
        <ProblemPanel title="This page is not up to date" problem={credentials.problem} />
      )}
      {all === undefined && credentials.problem === undefined && <Loading what="the credentials" lines={3} />}
      {all?.length === 0 && (
        <p className="empty">
          Nothing is stored. <Link to={{ page: 'home' }}>Connect an account</Link>
        </p>
      )}
      <ul className="cards">
        {all?.map((credential) => (
          <CredentialCard
            key={credential.id}
            credential={credential}
            title={titles.get(credential.provider) ?? humanise(credential.provider)}
            onChange={credentials.reload}
          />
        ))}
      </ul>
    </>
  );
}

interface CredentialCardProps {
  readonly credential: Credential;
  readonly title: string;
  readonly onChange: () => void;
}

function CredentialCard({ credential, title, onChange }: CredentialCardProps) {
  const { facts } = credential;
  const name = facts.email ?? facts.accountId;
  return (
    <li className="card">
      <h2>
        {title}
        {credential.realm === 'test' && <span className="mark">test</span>}
      </h2>
      <dl className="facts">
        <dt>Account</dt>
        <dd>{name}</dd>
        <dt>Label</dt>
        <dd>{credential.account}</dd>
        <dt>Subscription</dt>
        <dd>{facts.subscription === null ? 'not named' : humanise(facts.subscription)}</dd>
        <dt>Access until</dt>
        <dd>
          {facts.accessExpiresAt === null ? (
            'not said; the CLI renews it'
          ) : (
            <time dateTime={facts.accessExpiresAt}>{dateTime(facts.accessExpiresAt)}</time>
          )}
        </dd>
        <dt>Stored</dt>
        <dd>
          <time dateTime={credential.createdAt}>{dateTime(credential.createdAt)}</time>
        </dd>
        <dt>Version</dt>
        <dd>
          {credential.version}, written{' '}
          <time dateTime={credential.updatedAt}>{dateTime(credential.updatedAt)}</time>
        </dd>
        <dt>Held by</dt>
        <dd>
          {credential.holderMachineId === null ? (
            'no machine'
          ) : (
            <Link to={{ page: 'machine', id: credential.holderMachineId }}>
              <code>{credential.holderMachineId}</code>
            </Link>
          )}
        </dd>
      </dl>
      <div className="row">
        <ConfirmButton
          title={`Delete the credential of ${name}?`}
          explanation={
            <p>
              The stored copy and the file in the machine that holds it are deleted. Nothing is revoked at the
              provider.
            </p>
          }
          confirm="Delete it"
          label={`Delete the credential of ${name}`}
          action={async () => {
            await remove(`/api/credentials/${credential.id}`);
            onChange();
          }}
        >
          Delete
        </ConfirmButton>
      </div>
    </li>
  );
}
