/** Kernel, modules and first file system of the outer machine, kept in the cache under the hash of what they are made of. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { type CpioEntry, cpio, cpioFile, cpioFolder, cpioLink } from '../../host/images/cpio.ts';
import { layerId, sha256 } from '../../host/images/identity.ts';
import { removeTree } from '../../host/images/sandbox.ts';
import { kernelRelease, loadModules, unpackPackages } from '../../host/images/vm.ts';
import { DEFAULT_SUITE } from '../../images/recipe.ts';
import { VM_PACKAGES } from '../../images/vm.ts';

/** Before the root is there; all others are found in it by the kernel itself. */
const MODULES = ['virtio_pci', 'virtiofs', 'overlay'];
const COMMANDS = ['cat', 'cp', 'insmod', 'mkdir', 'mount', 'poweroff', 'sh', 'sleep', 'switch_root'];

export interface BenchParts {
  kernel: string;
  initrd: string;
  /** Folder with `lib/modules/<release>`. */
  folder: string;
}

const text = (name: string): Promise<Buffer> => readFile(path.join(import.meta.dirname, name));

/** Makes them unless they are there (about 35 MB are fetched). Throws `image_build_failed`. */
export async function ensureBenchParts(options: {
  cacheDir: string;
  signal: AbortSignal;
  log: (line: string) => void;
}): Promise<BenchParts> {
  const { cacheDir, signal, log } = options;
  const [init, second] = await Promise.all([text('init'), text('second')]);
  const packages = Object.values(VM_PACKAGES);
  const id = layerId('kvm-bench', {
    suite: DEFAULT_SUITE,
    packages,
    modules: MODULES,
    commands: COMMANDS,
    scripts: [sha256(init), sha256(second)],
  });
  const folder = path.join(cacheDir, 'kvm-bench', id);
  const parts = { kernel: path.join(folder, 'kernel'), initrd: path.join(folder, 'initrd'), folder };
  if (existsSync(folder)) return parts;

  const scratch = `${folder}.${process.pid}.tmp`;
  await removeTree(scratch);
  await mkdir(scratch, { recursive: true, mode: 0o755 });
  try {
    const root = await unpackPackages({
      packages,
      scratch,
      suite: DEFAULT_SUITE,
      mirror: process.env.POLYDEV_MIRROR,
      signal,
      log,
    });
    const release = await kernelRelease(root);
    const busybox = path.join(root, 'bin/busybox');
    await promisify(execFile)(busybox, ['depmod', '-b', root, release], { timeout: 120_000, signal });
    const early = await loadModules(path.join(root, 'lib/modules', release, 'kernel'), MODULES);
    const entries: CpioEntry[] = [
      ...['bin', 'modules', 'proc', 'sys', 'dev', 'host', 'memory', 'root'].map(cpioFolder),
      cpioFile('bin/busybox', await readFile(busybox), 0o755),
      ...COMMANDS.map((command) => cpioLink(`bin/${command}`, 'busybox')),
      cpioFile('modules/order', Buffer.from(`${early.map(({ name }) => name).join('\n')}\n`)),
      ...early.map(({ name, content }) => cpioFile(`modules/${name}.ko`, content)),
      cpioFile('second', second),
      cpioFile('init', init, 0o755),
    ];
    const finished = path.join(scratch, 'finished');
    await mkdir(path.join(finished, 'lib/modules'), { recursive: true });
    await cp(path.join(root, 'boot', `vmlinuz-${release}`), path.join(finished, 'kernel'));
    await rename(path.join(root, 'lib/modules', release), path.join(finished, 'lib/modules', release));
    await writeFile(path.join(finished, 'initrd'), cpio(entries));
    await rename(finished, folder);
  } finally {
    await removeTree(scratch);
  }
  return parts;
}
