/** Every fault that is injected today, in the order of the table, and those whose part does not exist yet. */

import { addressPoolExhausted } from './address-pool-exhausted/fault.ts';
import { agentCrashLoop } from './agent-crash-loop/fault.ts';
import { agentFileMissing } from './agent-file-missing/fault.ts';
import { agentHangs } from './agent-hangs/fault.ts';
import { agentPortTaken } from './agent-port-taken/fault.ts';
import { agentRuntimeBadInterpreter } from './agent-runtime-bad-interpreter/fault.ts';
import { agentRuntimeIllegalInstruction } from './agent-runtime-illegal-instruction/fault.ts';
import { agentRuntimeMissing } from './agent-runtime-missing/fault.ts';
import { agentRuntimeNotExecutable } from './agent-runtime-not-executable/fault.ts';
import { agentWrongToken } from './agent-wrong-token/fault.ts';
import { agentWrongVersion } from './agent-wrong-version/fault.ts';
import { callbackPortTaken } from './callback-port-taken/fault.ts';
import { chromiumCrashesAtStart } from './chromium-crashes-at-start/fault.ts';
import { cliMissing } from './cli-missing/fault.ts';
import { cliPrintsNoLoginUrl } from './cli-prints-no-login-url/fault.ts';
import { diskFullInTheGuest } from './disk-full-in-the-guest/fault.ts';
import { diskFullOnTheHost } from './disk-full-on-the-host/fault.ts';
import { dnsDead } from './dns-dead/fault.ts';
import { duplicateAddress } from './duplicate-address/fault.ts';
import type { Fault } from './fault.ts';
import { identityProviderUnreachable } from './identity-provider-unreachable/fault.ts';
import { imageLayerCorrupt } from './image-layer-corrupt/fault.ts';
import { imageLayerMissing } from './image-layer-missing/fault.ts';
import { initMissing } from './init-missing/fault.ts';
import { killedFromOutside } from './killed-from-outside/fault.ts';
import { memoryTooSmall } from './memory-too-small/fault.ts';
import { noNetworkDevice } from './no-network-device/fault.ts';
import { pidsTooSmall } from './pids-too-small/fault.ts';
import { runtimeBinaryMissing } from './runtime-binary-missing/fault.ts';
import { staleBrowserProfileLock } from './stale-browser-profile-lock/fault.ts';
import { xvncFails } from './xvnc-fails/fault.ts';
import { xvncMissing } from './xvnc-missing/fault.ts';

export const FAULTS: readonly Fault[] = [
  agentFileMissing,
  agentRuntimeMissing,
  agentRuntimeNotExecutable,
  agentRuntimeBadInterpreter,
  initMissing,
  agentRuntimeIllegalInstruction,
  agentCrashLoop,
  agentWrongToken,
  agentWrongVersion,
  agentHangs,
  agentPortTaken,
  xvncMissing,
  xvncFails,
  chromiumCrashesAtStart,
  staleBrowserProfileLock,
  memoryTooSmall,
  pidsTooSmall,
  diskFullInTheGuest,
  killedFromOutside,
  imageLayerMissing,
  imageLayerCorrupt,
  dnsDead,
  noNetworkDevice,
  duplicateAddress,
  addressPoolExhausted,
  runtimeBinaryMissing,
  diskFullOnTheHost,
  cliPrintsNoLoginUrl,
  cliMissing,
  callbackPortTaken,
  identityProviderUnreachable,
];

/** Name of the fault -> the part that has to exist before it can be injected. */
export const PENDING: Readonly<Record<string, string>> = {
  'no console on the kernel command line': 'a driver with a kernel of its own',
  'kernel file missing or of another architecture': 'a driver with a kernel of its own',
  'out-of-memory killer of the guest deadlocks': 'a driver with a kernel of its own',
  'root device missing': 'a driver with a kernel of its own',
  'root file system corrupt': 'a driver with a kernel of its own',
  'tap not on the bridge': 'a driver with taps',
  'tap without the header flag of its hypervisor': 'a driver with taps',
  'two owners of the address': 'an address given by DHCP',
  'DHCP server down': 'an address given by DHCP',
  'agent unit absent': 'a driver whose guest runs systemd',
  'unit enabled by a dangling link': 'a driver whose guest runs systemd',
  'unit not enabled': 'a driver whose guest runs systemd',
  'ordering cycle': 'a driver whose guest runs systemd',
  'dependency never reached': 'a driver whose guest runs systemd',
  'agent bound to loopback only': 'a driver whose channel is the network',
  'upstream proxy refuses': 'the egress proxy',
  'upstream proxy needs authentication': 'the egress proxy',
  'upstream proxy times out': 'the egress proxy',
  'guest clock years off': 'a driver with a clock of its own',
  'KVM absent, forbidden, or present but unusable': 'a driver that uses KVM',
  'API socket of a dead hypervisor in the way': 'a driver with a hypervisor',
  "machine killed by the host's out-of-memory killer": 'a way to fill the memory of a host without harm',
  'snapshot from another CPU or version': 'a driver with snapshots',
};
