import type { MachineId } from '../../protocol/ids.ts';
import { Link, PageHead, useTitle } from '../widgets/basics.tsx';
import Terminal from '../widgets/terminal.tsx';

/** The web terminal of a CLI machine; a stopped machine is started by opening it. */
export default function TerminalPage({ id }: { readonly id: string }) {
  useTitle('Terminal');
  return (
    <>
      <PageHead title="Terminal">
        <Link to={{ page: 'machine', id }} label={`The machine ${id}`} id="terminal-back">
          <code>{id}</code>
        </Link>
        <span className="page-head-end hint">
          <span>
            <kbd>Shift</kbd>+<kbd>Esc</kbd> leaves the terminal
          </span>
        </span>
      </PageHead>
      <Terminal machineId={id as MachineId} />
    </>
  );
}
