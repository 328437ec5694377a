/** The rules in the order in which they count: what lies deeper comes first, for it explains what lies above. */
import type { Rule } from '../rule.ts';
import { addressesExhausted } from './addresses-exhausted.ts';
import { agentCrashed } from './agent-crashed.ts';
import { agentMissing } from './agent-missing.ts';
import { agentPortTaken } from './agent-port-taken.ts';
import { agentRuntimeKilled } from './agent-runtime-killed.ts';
import { agentRuntimeUnusable } from './agent-runtime-unusable.ts';
import { agentSilent } from './agent-silent.ts';
import { agentTokenWrong } from './agent-token-wrong.ts';
import {
  agentDependencyStuck,
  agentOrderingCycle,
  agentUnitAbsent,
  agentUnitDangling,
  agentUnitNotEnabled,
} from './agent-unit.ts';
import { agentVersionMismatch } from './agent-version-mismatch.ts';
import { callbackPortTaken } from './callback-port-taken.ts';
import { chromiumCrashed } from './chromium-crashed.ts';
import { cliMissing } from './cli-missing.ts';
import { cliNoLoginUrl } from './cli-no-login-url.ts';
import { dnsDead } from './dns-dead.ts';
import { duplicateAddress } from './duplicate-address.ts';
import { addressTwoOwners, dhcpSilent } from './guest-address.ts';
import { guestClockWrong } from './guest-clock-wrong.ts';
import { guestDiskFull } from './guest-disk-full.ts';
import { guestOutOfMemory } from './guest-out-of-memory.ts';
import { guestTimerWrong } from './guest-timer-wrong.ts';
import { hostDiskFull } from './host-disk-full.ts';
import { hypervisorKilled } from './hypervisor-killed.ts';
import { hypervisorMissing } from './hypervisor-missing.ts';
import { idpUnreachable } from './idp-unreachable.ts';
import { imageLayerCorrupt } from './image-layer-corrupt.ts';
import { imageLayerMissing } from './image-layer-missing.ts';
import { kvmAbsent, kvmForbidden, kvmUnusable } from './kvm.ts';
import { machineKilled } from './machine-killed.ts';
import { memoryTooSmall } from './memory-too-small.ts';
import { noConsole } from './no-console.ts';
import { noNetworkDevice } from './no-network-device.ts';
import { pidsTooSmall } from './pids-too-small.ts';
import { rootDeviceMissing } from './root-device-missing.ts';
import { rootFileSystemCorrupt } from './root-file-system-corrupt.ts';
import { runtimeMissing } from './runtime-missing.ts';
import { snapshotForeign } from './snapshot-foreign.ts';
import { tapNotOnBridge } from './tap-not-on-bridge.ts';
import { tapWithoutHeader } from './tap-without-header.ts';
import { vmKernelMissing } from './vm-kernel-missing.ts';
import { vmKernelUnusable } from './vm-kernel-unusable.ts';
import { xvncFailed } from './xvnc-failed.ts';
import { xvncMissing } from './xvnc-missing.ts';

export const RULES: readonly Rule[] = [
  hostDiskFull,
  runtimeMissing,
  hypervisorMissing,
  kvmAbsent,
  kvmForbidden,
  kvmUnusable,
  tapWithoutHeader,
  vmKernelMissing,
  vmKernelUnusable,
  snapshotForeign,
  imageLayerMissing,
  imageLayerCorrupt,
  addressesExhausted,
  memoryTooSmall,
  hypervisorKilled,
  guestTimerWrong,
  guestOutOfMemory,
  rootDeviceMissing,
  pidsTooSmall,
  guestDiskFull,
  rootFileSystemCorrupt,
  agentOrderingCycle,
  agentUnitDangling,
  agentUnitAbsent,
  agentUnitNotEnabled,
  agentDependencyStuck,
  agentRuntimeUnusable,
  agentRuntimeKilled,
  agentMissing,
  agentCrashed,
  agentTokenWrong,
  agentVersionMismatch,
  agentPortTaken,
  machineKilled,
  guestClockWrong,
  noNetworkDevice,
  tapNotOnBridge,
  addressTwoOwners,
  dhcpSilent,
  duplicateAddress,
  // Of test machines the provider and the resolver are in one place: when both are silent, that place is away.
  idpUnreachable,
  dnsDead,
  xvncMissing,
  xvncFailed,
  chromiumCrashed,
  cliMissing,
  callbackPortTaken,
  cliNoLoginUrl,
  agentSilent,
  // A machine that works all the same: last.
  noConsole,
];
