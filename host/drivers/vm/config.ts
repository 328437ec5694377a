/** What a virtual machine is told on its config drive: files that its first program unpacks to /run. */
import type { MachineId } from '../../../protocol/ids.ts';
import type { GuestConfig, MachineSpec } from '../../../protocol/machine.ts';
import type { Attachment } from '../../network/network.ts';
import { journaldFiles } from './journal.ts';
import { type TarFile, tar } from './tar.ts';
import { maskFiles } from './units.ts';
import { witnessFiles } from './witness.ts';

/** By then the agent of a quiet host answers, and a look costs it nothing; of the start of the guest's kernel. */
const WITNESS_SECONDS = 15;

/** As the guest calls itself. */
export const hostnameOf = (id: MachineId): string => id.replace('_', '-').slice(0, 12);

/** `listen`: where the agent waits for its host; `slowdown`: the driver's. */
export function guestConfig(
  spec: MachineSpec,
  made: { attachment: Attachment; listen: GuestConfig['listen']; slowdown: number },
): GuestConfig {
  const { attachment, listen, slowdown } = made;
  return {
    version: 1,
    machineId: spec.id,
    kind: spec.kind,
    realm: spec.realm,
    hostname: hostnameOf(spec.id),
    display: spec.display,
    agentTokenHash: spec.agentTokenHash,
    dns: attachment.dns,
    ...(attachment.ca === undefined ? {} : { ca: attachment.ca }),
    slowdown,
    listen,
  };
}

/** networkd stays the one owner of eth0; its file comes before the image's, which would ask a DHCP server. */
export const networkdFile = ({ address, gateway }: Attachment): string => `[Match]
Name=eth0

[Network]
Address=${address}/32
LinkLocalAddressing=no
IPv6AcceptRA=no

[Route]
Destination=${gateway.address}/32
Scope=link

[Route]
Gateway=${gateway.address}
GatewayOnLink=yes

[Neighbor]
Address=${gateway.address}
LinkLayerAddress=${gateway.mac}
`;

/** What the agent's unit of the image does not say. */
const agentLimits = ({ pids }: MachineSpec['limits']): string => `[Unit]
# The root is whole before systemd starts: nothing to wait for.
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Service]
# What the console takes; see the kernel's arguments.
SyslogLevel=notice
TasksMax=${pids}
# Where memory runs out, one program ends: neither everything in the machine, nor the agent before others.
OOMPolicy=continue
OOMScoreAdjust=-500
LimitNOFILE=65536
LimitCORE=0
`;

/** The config drive's bytes; `more`: the driver's own files. */
export function configDrive(
  config: GuestConfig,
  spec: MachineSpec,
  attachment: Attachment,
  more: readonly TarFile[] = [],
): Buffer {
  const files: TarFile[] = [
    ...maskFiles(),
    ...journaldFiles(),
    ...witnessFiles(WITNESS_SECONDS),
    { path: 'polydev/config.json', mode: 0o400, text: JSON.stringify(config) },
    { path: 'systemd/network/10-eth0.network', mode: 0o644, text: networkdFile(attachment) },
    {
      path: 'systemd/system/polydev-agent.service.d/limits.conf',
      mode: 0o644,
      text: agentLimits(spec.limits),
    },
    ...more,
  ];
  return tar(files);
}
