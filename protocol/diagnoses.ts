/**
 * The closed catalogue of diagnoses: why a machine does not work. Each name has a section of the same name in
 * docs/troubleshooting-machines.md. A name is never reused. `fault` says whose turn it is, as in errors.ts.
 */
import { z } from 'zod';
import { GuestNetwork } from './agent.ts';
import { ErrorReport } from './errors.ts';
import { Checkpoint, Stamp } from './machine.ts';

export interface DiagnosisEntry {
  readonly fault: 'user' | 'operator' | 'system';
  /** What is the matter, one sentence. */
  readonly summary: string;
  /** What to do, one sentence. */
  readonly remedy: string;
}

const entry = (fault: DiagnosisEntry['fault'], summary: string, remedy: string): DiagnosisEntry => ({
  fault,
  summary,
  remedy,
});

export const DIAGNOSES = {
  // The host
  host_disk_full: entry(
    'operator',
    'The disk that holds the data directory is full.',
    'Free disk space under the data directory, then start again.',
  ),
  runtime_missing: entry(
    'operator',
    'The program that starts machines is not installed or cannot be executed.',
    'Install it again: apt-get install --no-install-recommends --reinstall runc.',
  ),
  hypervisor_missing: entry(
    'operator',
    'The hypervisor is not installed or cannot be executed.',
    'Install it again: apt-get install --no-install-recommends --reinstall qemu-system-x86.',
  ),
  kvm_absent: entry(
    'operator',
    'The hypervisor needs hardware virtualization, and this host does not offer it.',
    'Start with --driver auto, which chooses what runs here, or look at kvm in ./polydev doctor.',
  ),
  kvm_forbidden: entry(
    'operator',
    "The hypervisor's user may not open the device of hardware virtualization.",
    'Let a group use it: chown root:kvm /dev/kvm; chmod 0660 /dev/kvm. Inside a container, give it the device.',
  ),
  kvm_unusable: entry(
    'operator',
    'The device of hardware virtualization opens, and runs no guest.',
    'Start with --driver auto. In a virtual machine, enable nested virtualization at its host.',
  ),
  host_out_of_memory: entry(
    'operator',
    "The host's out-of-memory killer ended the machine's hypervisor.",
    'Run fewer machines, or give this host more memory.',
  ),
  vm_kernel_missing: entry(
    'operator',
    'The kernel of virtual machines is not in the image cache.',
    'Make it again: ./polydev image build --vm.',
  ),
  vm_kernel_unusable: entry(
    'operator',
    'The hypervisor refuses the kernel: it is broken, or of another architecture.',
    'Remove the folder vm in the image cache and make it again: ./polydev image build --vm.',
  ),
  snapshot_foreign: entry(
    'operator',
    'The sleeping machine was saved under another hypervisor, processor or kernel.',
    'Start the machine: it boots from its disk. What only its memory held is lost.',
  ),
  no_console: entry(
    'operator',
    'The kernel of the machine was told of no console, so nothing it says is kept.',
    'Look for what changes the command line of the hypervisor on this host.',
  ),
  image_layer_missing: entry(
    'operator',
    'A layer of the golden image is missing or has the wrong length.',
    'Build the image again: ./polydev image build.',
  ),
  image_layer_corrupt: entry(
    'operator',
    'A layer of the golden image is not what was verified.',
    'Remove the file named in the proof and build the image again: ./polydev image build.',
  ),
  addresses_exhausted: entry(
    'operator',
    'Every address of the subnet is taken.',
    'Remove machines that are not needed (./polydev machines rm) or choose a larger subnet.',
  ),

  // Limits of the machine
  memory_too_small: entry(
    'operator',
    'The machine needs more memory than its limit.',
    "Raise the machine's memory limit.",
  ),
  pids_too_small: entry(
    'operator',
    'The machine needs more processes and threads than its limit.',
    "Raise the machine's limit of processes.",
  ),
  guest_disk_full: entry(
    'operator',
    "The machine's private disk is full.",
    'Free space on the disk below the data directory, or remove files in the machine.',
  ),

  guest_out_of_memory: entry(
    'operator',
    "The guest's kernel ran out of memory.",
    "Raise the machine's memory limit.",
  ),

  // The first programs in the machine
  root_device_missing: entry(
    'system',
    'A disk of the virtual machine is missing.',
    'Destroy the machine and start again; look for what changes the command line of the hypervisor on this host.',
  ),
  root_file_system_corrupt: entry(
    'operator',
    'The file system of the machine cannot be mounted.',
    'Check the disk of the host. A CLI machine has to be destroyed and made again; its credential is in the vault.',
  ),
  agent_unit_absent: entry(
    'system',
    'systemd does not know the unit of the agent.',
    'The image is broken: verify it with ./polydev image verify and build it again.',
  ),
  agent_unit_dangling: entry(
    'system',
    'The link that enables the unit of the agent leads nowhere.',
    'The image is broken: verify it with ./polydev image verify and build it again.',
  ),
  agent_unit_not_enabled: entry(
    'system',
    'The unit of the agent is there, and nothing wants it.',
    "Something changed the machine's disk, or the image is broken: ./polydev image verify.",
  ),
  agent_ordering_cycle: entry(
    'system',
    'systemd gave the agent up to break an ordering cycle of units.',
    'Remove the order named in the proof from the unit that was added.',
  ),
  agent_dependency_stuck: entry(
    'system',
    'The agent waits for a unit that does not come.',
    'Look at the unit whose job runs in the proof.',
  ),
  guest_clock_wrong: entry(
    'operator',
    "The machine's clock is days or years off.",
    'Set the clock of the host, or look for what changes the command line of the hypervisor on this host.',
  ),
  guest_timer_wrong: entry(
    'operator',
    "The guest's kernel could not measure its timer.",
    'The host has too little time for an emulated machine, or its clock is wrong: start fewer at once, or look at its load.',
  ),
  agent_runtime_unusable: entry(
    'system',
    'The program that runs the agent cannot be executed.',
    'The image is broken: verify it with ./polydev image verify and build it again.',
  ),
  agent_runtime_killed: entry(
    'operator',
    'The program that runs the agent ended by a signal of the processor.',
    'This processor cannot run the image, or the image is broken: build it on this host.',
  ),
  agent_missing: entry(
    'system',
    'The agent is not in the image.',
    'The image is broken: verify it with ./polydev image verify and build it again.',
  ),
  agent_crashed: entry(
    'system',
    'The agent ended with an error of its own.',
    'Report it with the lines of the proof; a new image may mend it: ./polydev image build.',
  ),
  agent_token_wrong: entry(
    'system',
    'The agent refuses the token of its machine.',
    'The machine was made with another master key: destroy it and start again.',
  ),
  agent_version_mismatch: entry(
    'system',
    'The agent is not the one that the image was verified with.',
    "Something changed the machine's disk: destroy the machine and start again.",
  ),
  agent_silent: entry(
    'system',
    'The machine runs, but its agent no longer answers.',
    'Read the console of the machine; stop it and start it again, or start the login again in a new one.',
  ),
  agent_port_taken: entry(
    'system',
    "Another program of the machine holds the agent's port.",
    'Destroy the machine and start again; the channel to the agent still works.',
  ),
  machine_killed: entry(
    'operator',
    "The machine's first process was killed from outside.",
    "Look for who did it: the host's kernel log (out of memory) or an operator.",
  ),

  // Network
  no_network_device: entry(
    'system',
    'The machine has no network device.',
    'Destroy the machine and start again; look for what removes interfaces on this host.',
  ),
  tap_not_on_bridge: entry(
    'system',
    "The machine's link is on no bridge.",
    'Destroy the machine and start again; look for what changes interfaces on this host.',
  ),
  tap_without_header: entry(
    'operator',
    "The machine's link lacks the header that its hypervisor puts before every frame.",
    'Use the kernel and the ip program (iproute2) of your distribution: one of them does not know vnet_hdr.',
  ),
  address_two_owners: entry(
    'system',
    "Two programs of the machine give its interface addresses, and take each other's away.",
    'Disable the one that is named in the proof. If it came with the image: ./polydev image verify, and build it again.',
  ),
  dhcp_silent: entry(
    'system',
    'The machine waits for an address from a DHCP server, and there is none.',
    "Remove what hides the machine's own network file, or what comes before it; the proof names the file that is used.",
  ),
  duplicate_address: entry(
    'system',
    "Two machines have the machine's address.",
    'Destroy both machines named in the proof.',
  ),
  dns_dead: entry(
    'operator',
    'The resolver of the machines does not answer.',
    'Restart the host service; look at the resolver in its log.',
  ),
  idp_unreachable: entry(
    'operator',
    'The machine cannot reach the identity provider.',
    'Check the way from the machine to the provider; for the test provider, start the host service again.',
  ),

  // Desktop
  xvnc_missing: entry(
    'system',
    'The X server is not in the image.',
    'The image is broken: verify it with ./polydev image verify and build it again.',
  ),
  xvnc_failed: entry(
    'system',
    'The X server does not start.',
    "Read the X server's lines in the proof and in the agent log.",
  ),
  chromium_crashed: entry(
    'system',
    'Chromium ends again and again.',
    "Read Chromium's lines in the proof and in the agent log.",
  ),

  // The CLI
  cli_missing: entry(
    'system',
    "The provider's CLI is not in the image.",
    'The image is broken: verify it with ./polydev image verify and build it again.',
  ),
  callback_port_taken: entry(
    'system',
    "Another program of the machine holds the port of the CLI's callback.",
    'Start the login again in a new machine.',
  ),
  cli_no_login_url: entry(
    'system',
    'The CLI printed no login page.',
    "Read the CLI's lines in the proof; an update of the CLI may have changed what it prints.",
  ),

  unknown: entry(
    'system',
    'No rule knows this failure.',
    'Read the console and the agent log from the last checkpoint on, and report it with ./polydev evidence.',
  ),
} as const satisfies Record<string, DiagnosisEntry>;

export type DiagnosisName = keyof typeof DIAGNOSES;
export const DiagnosisName = z.enum(Object.keys(DIAGNOSES) as [DiagnosisName, ...DiagnosisName[]]);

/** A line that proves it. `source` is the name of a file of the evidence, or `check` for a fact that was looked up. */
export const ProofLine = z.object({ source: z.string(), text: z.string() });
export type ProofLine = z.infer<typeof ProofLine>;

export const Diagnosis = z.object({
  name: DiagnosisName,
  summary: z.string(),
  fault: z.enum(['user', 'operator', 'system']),
  remedy: z.string(),
  /** At most 20. */
  lines: z.array(ProofLine).max(20),
  /** The last checkpoint that the boot reached; null: none. */
  checkpoint: Checkpoint.nullable(),
  at: z.iso.datetime({ precision: 3 }),
});
export type Diagnosis = z.infer<typeof Diagnosis>;

/** What the controller tells the host service of a machine: what only it has seen. */
export const DiagnosisRequest = z.strictObject({
  /** Why the boot or the login failed; null: nothing did, as far as the controller knows. */
  error: ErrorReport.nullable(),
  stamps: z.array(Stamp).max(20),
  /** As the agent's /health says. */
  agentVersion: z.string().max(200).nullable().default(null),
  guestNetwork: GuestNetwork.nullable().default(null),
  /** Keep the answer in the evidence: the failure is final and the machine goes soon. */
  keep: z.boolean().default(false),
});
export type DiagnosisRequest = z.infer<typeof DiagnosisRequest>;
/** As a client sends it: what has a default may be absent. */
export type DiagnosisQuestion = z.input<typeof DiagnosisRequest>;

/** `null`: nothing is wrong as far as can be seen. */
export const DiagnosisReply = z.object({ diagnosis: Diagnosis.nullable() });
export type DiagnosisReply = z.infer<typeof DiagnosisReply>;
