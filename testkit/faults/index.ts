/** Every fault that is injected today, in the order of the table, and those whose part does not exist yet. */

import { addressPoolExhausted } from './address-pool-exhausted/fault.ts';
import { agentCrashLoop } from './agent-crash-loop/fault.ts';
import { agentDependencyNeverReached } from './agent-dependency-never-reached/fault.ts';
import { agentFileMissing } from './agent-file-missing/fault.ts';
import { agentHangs } from './agent-hangs/fault.ts';
import { agentOrderingCycle } from './agent-ordering-cycle/fault.ts';
import { agentPortTaken } from './agent-port-taken/fault.ts';
import { agentRuntimeBadInterpreter } from './agent-runtime-bad-interpreter/fault.ts';
import { agentRuntimeIllegalInstruction } from './agent-runtime-illegal-instruction/fault.ts';
import { agentRuntimeMissing } from './agent-runtime-missing/fault.ts';
import { agentRuntimeNotExecutable } from './agent-runtime-not-executable/fault.ts';
import { agentUnitAbsent } from './agent-unit-absent/fault.ts';
import { agentUnitDanglingLink } from './agent-unit-enabled-by-a-dangling-link/fault.ts';
import { agentUnitNotEnabled } from './agent-unit-not-enabled/fault.ts';
import { agentWrongToken } from './agent-wrong-token/fault.ts';
import { agentWrongVersion } from './agent-wrong-version/fault.ts';
import { callbackPortTaken } from './callback-port-taken/fault.ts';
import { chromiumCrashesAtStart } from './chromium-crashes-at-start/fault.ts';
import { cliMissing } from './cli-missing/fault.ts';
import { cliPrintsNoLoginUrl } from './cli-prints-no-login-url/fault.ts';
import { controlSocketOfADeadHypervisor } from './control-socket-of-a-dead-hypervisor/fault.ts';
import { dhcpServerDown } from './dhcp-server-down/fault.ts';
import { diskFullInTheGuest } from './disk-full-in-the-guest/fault.ts';
import { diskFullOnTheHost } from './disk-full-on-the-host/fault.ts';
import { dnsDead } from './dns-dead/fault.ts';
import { duplicateAddress } from './duplicate-address/fault.ts';
import type { Fault } from './fault.ts';
import { guestClockYearsOff } from './guest-clock-years-off/fault.ts';
import { guestTimerWrong } from './guest-timer-wrong/fault.ts';
import { hypervisorBinaryMissing } from './hypervisor-binary-missing/fault.ts';
import { hypervisorKilledForMemory } from './hypervisor-killed-for-memory/fault.ts';
import { identityProviderUnreachable } from './identity-provider-unreachable/fault.ts';
import { imageLayerCorrupt } from './image-layer-corrupt/fault.ts';
import { imageLayerMissing } from './image-layer-missing/fault.ts';
import { initMissing } from './init-missing/fault.ts';
import { killedFromOutside } from './killed-from-outside/fault.ts';
import { kvmAbsent } from './kvm-absent/fault.ts';
import { kvmForbidden } from './kvm-forbidden/fault.ts';
import { kvmPresentButUnusable } from './kvm-present-but-unusable/fault.ts';
import { memoryTooSmall } from './memory-too-small/fault.ts';
import { noConsoleOnTheKernelCommandLine } from './no-console-on-the-kernel-command-line/fault.ts';
import { noNetworkDevice } from './no-network-device/fault.ts';
import { pidsTooSmall } from './pids-too-small/fault.ts';
import { rootDeviceMissing } from './root-device-missing/fault.ts';
import { rootFileSystemCorrupt } from './root-file-system-corrupt/fault.ts';
import { runtimeBinaryMissing } from './runtime-binary-missing/fault.ts';
import { snapshotFromAnotherVersion } from './snapshot-from-another-version/fault.ts';
import { staleBrowserProfileLock } from './stale-browser-profile-lock/fault.ts';
import { tapNotOnTheBridge } from './tap-not-on-the-bridge/fault.ts';
import { tapWithoutTheHeaderFlag } from './tap-without-the-header-flag/fault.ts';
import { twoOwnersOfTheAddress } from './two-owners-of-the-address/fault.ts';
import { vmAgentRuntimeBadInterpreter } from './vm-agent-runtime-bad-interpreter/fault.ts';
import { vmAgentRuntimeIllegalInstruction } from './vm-agent-runtime-illegal-instruction/fault.ts';
import { vmAgentRuntimeMissing } from './vm-agent-runtime-missing/fault.ts';
import { vmAgentRuntimeMissingWithoutAConsole } from './vm-agent-runtime-missing-without-a-console/fault.ts';
import { vmAgentRuntimeNotExecutable } from './vm-agent-runtime-not-executable/fault.ts';
import { vmDiskFull } from './vm-disk-full/fault.ts';
import { vmKernelMissing } from './vm-kernel-missing/fault.ts';
import { vmKernelOfAnotherArchitecture } from './vm-kernel-of-another-architecture/fault.ts';
import { vmMemoryDeadlock } from './vm-memory-deadlock/fault.ts';
import { vmMemoryTooSmall } from './vm-memory-too-small/fault.ts';
import { vmNoNetworkDevice } from './vm-no-network-device/fault.ts';
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
  vmKernelMissing,
  vmKernelOfAnotherArchitecture,
  hypervisorBinaryMissing,
  kvmAbsent,
  kvmForbidden,
  kvmPresentButUnusable,
  rootDeviceMissing,
  rootFileSystemCorrupt,
  vmMemoryTooSmall,
  vmMemoryDeadlock,
  vmDiskFull,
  vmNoNetworkDevice,
  tapNotOnTheBridge,
  tapWithoutTheHeaderFlag,
  twoOwnersOfTheAddress,
  dhcpServerDown,
  noConsoleOnTheKernelCommandLine,
  controlSocketOfADeadHypervisor,
  hypervisorKilledForMemory,
  guestClockYearsOff,
  guestTimerWrong,
  agentUnitAbsent,
  agentUnitDanglingLink,
  agentUnitNotEnabled,
  agentOrderingCycle,
  agentDependencyNeverReached,
  vmAgentRuntimeMissing,
  vmAgentRuntimeMissingWithoutAConsole,
  vmAgentRuntimeNotExecutable,
  vmAgentRuntimeBadInterpreter,
  vmAgentRuntimeIllegalInstruction,
  snapshotFromAnotherVersion,
];

const EGRESS = 'the egress proxy: no machine is led through an upstream proxy yet';

/** Name of the fault -> the part that has to exist before it can be injected. */
export const PENDING: Readonly<Record<string, string>> = {
  'agent bound to loopback only':
    'a driver that reaches its agent over the network: all three have a channel of their own (an inherited socket, a serial port, vsock)',
  'upstream proxy refuses': EGRESS,
  'upstream proxy needs authentication': EGRESS,
  'upstream proxy times out': EGRESS,
};
