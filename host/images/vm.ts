/**
 * The `vm` parts of a host: kernel and initramfs for machines that are virtual machines. They are made on demand, beside
 * the image and not part of it: a host that runs namespaces only never fetches them.
 *
 *   vm/<id>/kernel, initrd, vm.json    finished parts; `vm.json` is written last
 */
import { chmod, mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { DEFAULT_SUITE, EPOCH } from '../../images/recipe.ts';
import { VM_COMMANDS, VM_MODULES, VM_PACKAGES } from '../../images/vm.ts';
import { PolydevError } from '../../protocol/errors.ts';
import type { BaseSettings } from './base.ts';
import { type CpioEntry, cpio, cpioFile, cpioFolder, cpioLink } from './cpio.ts';
import { layerId, sha256 } from './identity.ts';
import { clearLeftovers } from './leftovers.ts';
import { takeLock } from './lock.ts';
import { cacheFiles, LayerId, readRecord } from './manifest.ts';
import { openSandbox, type Sandbox, unconfined } from './sandbox.ts';
import { imageSources } from './sources.ts';

const VmRecord = z.object({
  id: LayerId,
  /** Release of the kernel, as `uname -r` says it. */
  release: z.string(),
  created: z.iso.datetime(),
});

export interface VmParts {
  readonly id: string;
  readonly release: string;
  /** Absolute paths. */
  readonly kernel: string;
  readonly initrd: string;
}

export interface VmBuildOptions extends BaseSettings {
  readonly cacheDir: string;
  readonly checkout: string;
  readonly signal: AbortSignal;
  readonly log?: (line: string) => void;
  readonly progress?: (message: string) => void;
}

const initScript = (checkout: string): Promise<Buffer> => readFile(path.join(checkout, 'images/vm/init'));

async function vmId(checkout: string, suite: string): Promise<string> {
  const init = sha256(await initScript(checkout));
  const made = { packages: VM_PACKAGES, modules: VM_MODULES, commands: VM_COMMANDS, order: 'by device' };
  return layerId('vm', { suite, ...made, init });
}

const vmFolder = (cacheDir: string, id: string): string => path.join(cacheDir, 'vm', id);

async function readParts(cacheDir: string, id: string): Promise<VmParts | undefined> {
  const folder = vmFolder(cacheDir, id);
  const record = await readRecord(path.join(folder, 'vm.json'), VmRecord);
  if (record === undefined) return undefined;
  const { release } = record;
  return { id, release, kernel: path.join(folder, 'kernel'), initrd: path.join(folder, 'initrd') };
}

/** The parts that fit this checkout, if they were made; builds nothing. */
export async function findVmParts(
  options: Pick<VmBuildOptions, 'cacheDir' | 'checkout' | 'suite'>,
): Promise<VmParts | undefined> {
  return readParts(options.cacheDir, await vmId(options.checkout, options.suite ?? DEFAULT_SUITE));
}

/**
 * Makes the parts unless they are there: fetches Debian's cloud kernel and BusyBox (about 30 MB) and packs the
 * initramfs. Throws `image_build_failed`, `configuration_invalid`, `driver_unusable`.
 */
export async function ensureVmParts(options: VmBuildOptions): Promise<VmParts> {
  const { cacheDir, checkout, signal, mirror, log = () => undefined, progress = () => undefined } = options;
  if (process.arch !== 'x64') {
    throw new PolydevError('driver_unusable', `virtual machines are made for x64 only, not ${process.arch}`);
  }
  const suite = options.suite ?? DEFAULT_SUITE;
  const id = await vmId(checkout, suite);
  const found = await readParts(cacheDir, id);
  if (found !== undefined) return found;

  const files = cacheFiles(cacheDir);
  await mkdir(files.tmpDir, { recursive: true, mode: 0o755 });
  await using _lock = await takeLock(files.lock, { signal });
  const madeMeanwhile = await readParts(cacheDir, id);
  if (madeMeanwhile !== undefined) return madeMeanwhile;
  await using sandbox = await openSandbox({
    folder: files.tmpDir,
    signal,
    onFallback: (why) => log(`warning: ${why}`),
  });
  await clearLeftovers(cacheDir, sandbox);
  const scratch = path.join(files.tmpDir, `vm-${id}`);
  await mkdir(scratch, { recursive: true });
  await chmod(scratch, 0o755);
  try {
    progress('fetching the kernel');
    const root = await unpackPackages({
      packages: Object.values(VM_PACKAGES),
      scratch,
      suite,
      mirror,
      signal,
      log,
      sandbox,
    });
    progress('packing the initramfs');
    const release = await kernelRelease(root);
    const finished = path.join(scratch, 'finished');
    await mkdir(finished, { mode: 0o755 });
    // Not copyFile: that copies the owner too, who is nobody of this host.
    await writeFile(
      path.join(finished, 'kernel'),
      await readFile(path.join(root, 'boot', `vmlinuz-${release}`)),
    );
    await writeFile(path.join(finished, 'initrd'), cpio(await initramfs(root, release, checkout)));
    const record: z.infer<typeof VmRecord> = { id, release, created: new Date().toISOString() };
    await writeFile(path.join(finished, 'vm.json'), `${JSON.stringify(record, null, 2)}\n`, { flush: true });
    await mkdir(path.dirname(vmFolder(cacheDir, id)), { recursive: true, mode: 0o755 });
    await rename(finished, vmFolder(cacheDir, id));
  } finally {
    await sandbox.remove(scratch);
  }
  const made = await readParts(cacheDir, id);
  if (made === undefined) throw new PolydevError('image_build_failed', 'the vm parts were not written');
  return made;
}

/** Unpacks packages, without installing them, from the same sources as the image; the folder they are in. */
export async function unpackPackages(options: {
  packages: readonly string[];
  scratch: string;
  suite: string;
  mirror: string | undefined;
  signal: AbortSignal;
  log: (line: string) => void;
  /** Default: the caller itself. */
  sandbox?: Sandbox;
}): Promise<string> {
  const { packages, scratch, suite, mirror, signal, log, sandbox = unconfined } = options;
  const root = path.join(scratch, 'root');
  const sources = path.join(scratch, 'sources.list');
  const temporary = path.join(scratch, 'tmp');
  const lines = await imageSources({ suite, mirror });
  await writeFile(sources, `${lines.join('\n')}\n`, { mode: 0o600 });
  for (const folder of [root, temporary]) await mkdir(folder);
  await chmod(root, 0o755);
  await chmod(temporary, 0o1777);
  await sandbox.give([root, sources, temporary]);
  await sandbox.run(
    [
      'mmdebstrap',
      '--mode=root',
      '--format=directory',
      '--variant=extract',
      '--architectures=amd64',
      '--aptopt=Apt::Install-Recommends "false"',
      '--aptopt=Acquire::Retries "3"',
      `--include=${packages.join(',')}`,
      suite,
      root,
      sources,
    ],
    {
      what: 'fetching the kernel',
      deadline: 900_000,
      signal,
      env: { ...process.env, SOURCE_DATE_EPOCH: String(EPOCH), LC_ALL: 'C.UTF-8', TMPDIR: temporary },
      onLine: log,
    },
  );
  return root;
}

/** The release of the one kernel below `root`. Throws `image_build_failed`. */
export async function kernelRelease(root: string): Promise<string> {
  const names = await readdir(path.join(root, 'boot'));
  const releases = names.flatMap((name) => /^vmlinuz-(.+)$/.exec(name)?.[1] ?? []);
  const [release] = releases;
  if (release === undefined || releases.length > 1) {
    throw new PolydevError(
      'image_build_failed',
      `expected one kernel, found: ${releases.join(' ') || 'none'}`,
    );
  }
  return release;
}

/** Names of modules are written with `-` or `_`, which mean the same. */
const plainName = (name: string): string => name.replaceAll('-', '_');

/** The values of a key in a module's .modinfo section. */
function moduleInfo(content: Buffer, key: string): string[] {
  const values: string[] = [];
  const entry = `\0${key}=`;
  for (let at = content.indexOf(entry); at !== -1; at = content.indexOf(entry, at + 1)) {
    const from = at + entry.length;
    values.push(content.subarray(from, content.indexOf(0, from)).toString('latin1'));
  }
  return values;
}

/** What a module needs. */
export const moduleNeeds = (content: Buffer): string[] =>
  (moduleInfo(content, 'depends')[0] ?? '').split(',').filter((name) => name !== '');

/** The virtual devices a module is for, as patterns of their aliases; none: it is not for those only. */
export const moduleDevices = (content: Buffer): string[] =>
  moduleInfo(content, 'alias').filter((alias) => /^(pci|virtio):/.test(alias));

interface Module {
  readonly name: string;
  readonly content: Buffer;
}

/**
 * A line for each module, in the same order: its name, and the devices without which nobody needs it. One that others need, which
 * come after it, is needed where any of them is.
 */
export function loadOrder(modules: readonly Module[]): string {
  const devices = new Map<string, string[]>();
  for (const { name, content } of modules.toReversed()) {
    const users = modules.filter((other) => moduleNeeds(other.content).map(plainName).includes(name));
    const own = moduleDevices(content);
    const wanted = users.map((user) => devices.get(user.name) ?? []);
    const all = own.length > 0 || users.length === 0 ? [own, ...wanted] : wanted;
    devices.set(name, all.some((each) => each.length === 0) ? [] : [...new Set(all.flat())]);
  }
  return modules.map(({ name }) => `${[name, ...(devices.get(name) ?? [])].join(' ')}\n`).join('');
}

/** The wanted modules and all they need, in an order in which each can be loaded. Throws `image_build_failed`. */
export async function loadModules(tree: string, wantedNames: readonly string[]): Promise<Module[]> {
  const files = new Map<string, string>();
  for (const file of await readdir(tree, { recursive: true })) {
    const name = /([^/]+)\.ko$/.exec(file)?.[1];
    if (name !== undefined) files.set(plainName(name), path.join(tree, file));
  }
  const loaded = new Map<string, Buffer>();
  const load = async (wanted: string, path_: readonly string[]): Promise<void> => {
    const name = plainName(wanted);
    if (loaded.has(name) || path_.includes(name)) return;
    const file = files.get(name);
    if (file === undefined) {
      throw new PolydevError(
        'image_build_failed',
        `the kernel has no module ${[...path_, name].join(' > ')}`,
      );
    }
    const content = await readFile(file);
    for (const needed of moduleNeeds(content)) await load(needed, [...path_, name]);
    loaded.set(name, content);
  };
  for (const name of wantedNames) await load(name, []);
  return Array.from(loaded, ([name, content]) => ({ name, content }));
}

async function initramfs(root: string, release: string, checkout: string): Promise<CpioEntry[]> {
  // Debian 12 keeps modules below /lib; a merged /usr makes that the same place.
  const modules = await loadModules(path.join(root, 'lib/modules', release, 'kernel'), VM_MODULES);
  const folders = ['bin', 'modules', 'proc', 'sys', 'dev', 'run', 'disk', 'layers', 'root'];
  return [
    ...folders.map(cpioFolder),
    cpioFile('bin/busybox', await readFile(path.join(root, 'bin/busybox')), 0o755),
    ...VM_COMMANDS.map((command) => cpioLink(`bin/${command}`, 'busybox')),
    cpioFile('modules/order', Buffer.from(loadOrder(modules))),
    ...modules.map(({ name, content }) => cpioFile(`modules/${name}.ko`, content)),
    cpioFile('init', await initScript(checkout), 0o755),
  ];
}
