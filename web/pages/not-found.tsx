import { Link, PageHead, useTitle } from '../widgets/basics.tsx';

export function NotFoundPage() {
  useTitle('No such page');
  return (
    <>
      <PageHead title="There is nothing at this address" />
      <p>
        Finished logins and machines stay listed for a while; what was removed does not.{' '}
        <Link to={{ page: 'home' }}>Go to your accounts</Link>
      </p>
    </>
  );
}
