/** What a guest under Firecracker is told beside the config drive's usual files: who takes the calls on its virtual socket. */
import { AGENT_PORT, type GuestConfig, POWER_PORT } from '../../../protocol/machine.ts';
import type { TarFile } from '../vm/tar.ts';

const AGENT_SOCKET = '/run/polydev/agent.sock';

export const LISTEN: GuestConfig['listen'] = { path: AGENT_SOCKET };

const socket = (port: number, service: string): string => `[Unit]
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Socket]
ListenStream=vsock::${port}
Service=${service}
`;

const unit = (name: string, text: string): TarFile => ({ path: `systemd/system/${name}`, mode: 0o644, text });

/**
 * Node has no virtual sockets: systemd listens on them, and hands each connection to the agent's own socket, or ends the
 * machine (a restart, since Firecracker ends where the guest would start again).
 */
export const CHANNEL_UNITS: readonly TarFile[] = [
  unit('polydev-channel.socket', socket(AGENT_PORT, 'polydev-channel.service')),
  unit(
    'polydev-channel.service',
    `[Unit]
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/lib/systemd/systemd-socket-proxyd --connections-max=1024 ${AGENT_SOCKET}
Restart=on-failure
`,
  ),
  unit('polydev-power.socket', socket(POWER_PORT, 'polydev-power.service')),
  unit(
    'polydev-power.service',
    `[Unit]
DefaultDependencies=no

[Service]
Type=oneshot
ExecStart=/bin/systemctl --no-block reboot
`,
  ),
  unit('sysinit.target.d/polydev.conf', '[Unit]\nWants=polydev-channel.socket polydev-power.socket\n'),
];
