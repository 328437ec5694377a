/** What of Debian's boot a virtual machine of ours leaves out; each of it was measured to cost time and give nothing. */

/**
 * Units of a machine with a screen, a keyboard, modules, encrypted disks or hibernation. udev: the kernel names the one
 * interface as it should, and nothing waits for a device; networkd does not look for udev where /sys is read-only.
 */
const MASKED_UNITS: readonly string[] = [
  ...['getty.target', 'remote-fs.target', 'cryptsetup.target', 'integritysetup.target', 'veritysetup.target'],
  ...['e2scrub_reap.service', 'e2scrub_all.timer', 'fstrim.timer'],
  ...['apt-daily.timer', 'apt-daily-upgrade.timer', 'dpkg-db-backup.timer', 'systemd-tmpfiles-clean.timer'],
  ...['configfs', 'dm_mod', 'drm', 'efi_pstore', 'fuse', 'loop'].map((name) => `modprobe@${name}.service`),
  ...['dev-hugepages.mount', 'dev-mqueue.mount', 'sys-kernel-debug.mount', 'sys-kernel-tracing.mount'],
  ...['sys-kernel-config.mount', 'sys-fs-fuse-connections.mount', 'proc-sys-fs-binfmt_misc.automount'],
  ...['kmod-static-nodes', 'systemd-binfmt', 'systemd-firstboot', 'systemd-journal-flush'].map(service),
  ...['systemd-logind', 'systemd-machine-id-commit', 'systemd-modules-load'].map(service),
  ...['systemd-network-generator', 'systemd-pcrphase', 'systemd-pcrphase-sysinit', 'systemd-pstore'].map(
    service,
  ),
  ...['systemd-random-seed', 'systemd-remount-fs', 'systemd-repart', 'systemd-sysusers'].map(service),
  ...['systemd-tmpfiles-setup', 'systemd-tmpfiles-setup-dev', 'systemd-udevd', 'systemd-udev-trigger'].map(
    service,
  ),
  ...['systemd-update-utmp', 'systemd-update-utmp-runlevel', 'systemd-user-sessions', 'dbus'].map(service),
  ...['dbus', 'systemd-initctl', 'systemd-journald-audit', 'syslog'].map((name) => `${name}.socket`),
  ...['systemd-udevd-control.socket', 'systemd-udevd-kernel.socket'],
  ...['systemd-ask-password-console.path', 'systemd-ask-password-wall.path'],
];

function service(name: string): string {
  return `${name}.service`;
}

/** Each is a program that systemd runs before it starts anything. */
const MASKED_GENERATORS: readonly string[] = [
  ...['cryptsetup', 'debug', 'fstab', 'getty', 'gpt-auto', 'hibernate-resume', 'integritysetup'],
  ...['rc-local', 'run', 'system-update', 'sysv', 'veritysetup'],
];

/** Empty files below /run that stand in for them: systemd takes an empty file as "there is none". Paths are relative to /run. */
export const maskFiles = (): { path: string; mode: number; text: string }[] => [
  ...MASKED_UNITS.map((unit) => ({ path: `systemd/system/${unit}`, mode: 0o644, text: '' })),
  ...MASKED_GENERATORS.map((name) => ({
    path: `systemd/system-generators/systemd-${name}-generator`,
    mode: 0o755,
    text: '',
  })),
];
