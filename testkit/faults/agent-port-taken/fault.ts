import type { Fault } from '../fault.ts';

export const agentPortTaken: Fault = {
  name: 'agent-port-taken',
  expect: 'agent_port_taken',
  // The real agent of the image, started after a program that takes its port.
  before: async ({ disk }) =>
    disk.write(
      '/usr/bin/tini',
      '#!/bin/sh\n/usr/local/bin/node -e "require(\'net\').createServer().listen(8080, () => console.log(\'squatter\'))" &\nsleep 1\nshift\nexec "$@"\n',
    ),
};
