/** The CLI listens for the answer of the provider on a fixed port. */
import { checked, linesIn, type Rule } from '../rule.ts';

export const callbackPortTaken: Rule = {
  name: 'callback_port_taken',
  prove(found) {
    if (found.error?.code !== 'login_no_url' && found.error?.code !== 'login_cli_failed') return undefined;
    const said = linesIn(found, ['error', 'agent.log'], /port .*(in use|EADDRINUSE)|address already in use/i);
    const port = Number(/(?::|port )(\d{4,5})\b/i.exec(said.map(({ text }) => text).join(' '))?.[1]);
    const listening = found.facts?.network?.listening?.includes(port) === true;
    if (said.length === 0) return undefined;
    return [
      ...said,
      ...(listening ? [checked(`port ${port} of the machine is still held by a program`)] : []),
    ];
  },
};
