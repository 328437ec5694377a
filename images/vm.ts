/** The parts that only virtual machines need beside the layers: a kernel, and a small file system in memory to start from. */

/** Debian packages they are taken from; nothing of them is installed in the image. */
export const VM_PACKAGES = { kernel: 'linux-image-cloud-amd64', shell: 'busybox-static' } as const;

/**
 * Drivers the first program loads, those that name devices only where one is there; what these need comes before them. All else the
 * kernel has built in.
 */
export const VM_MODULES: readonly string[] = [
  'virtio_mmio',
  'virtio_pci',
  'virtio_blk',
  'virtio_net',
  'virtio_console',
  'virtio-rng',
  'virtio_balloon',
  'vmw_vsock_virtio_transport',
  'erofs',
  'overlay',
];

/** Programs of `images/vm/init`, all of them BusyBox. */
export const VM_COMMANDS: readonly string[] = [
  'insmod',
  'mkdir',
  'mount',
  'reboot',
  'sh',
  'sleep',
  'switch_root',
  'tar',
  'umount',
];
