/** The clis layer: Node and the AI CLIs by `npm ci` from the committed lock, below /opt/polydev/clis. */
import { copyFile, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { APPROXIMATE_DOWNLOAD, CLI_COMMANDS, CLI_INSTALL_SCRIPTS } from '../../images/recipe.ts';
import { layerId, sha256 } from './identity.ts';
import { type FillContext, type LayerPlan, normaliseModesIn, packageVersion } from './layer.ts';
import { run } from './run.ts';

const PLACE = 'opt/polydev/clis';

/** Npm package that carries the Node binary for this machine's architecture. */
const nodePackage = `node-linux-${process.arch}`;

/** Plans the clis layer of a checkout: its identity covers the lock, the links and the install scripts that run. */
export async function planClis(checkout: string): Promise<LayerPlan> {
  const from = path.join(checkout, 'images/clis');
  const id = layerId('clis', {
    arch: process.arch,
    package: sha256(await readFile(path.join(from, 'package.json'))),
    lock: sha256(await readFile(path.join(from, 'package-lock.json'))),
    commands: CLI_COMMANDS,
    scripts: CLI_INSTALL_SCRIPTS,
  });
  return { name: 'clis', id, ownedByRoot: true, fill: (root, context) => installClis(root, context, from) };
}

async function installClis(
  root: string,
  context: FillContext,
  from: string,
): Promise<Record<string, string>> {
  const { signal, scratch, sandbox } = context;
  const place = path.join(root, PLACE);
  const modules = path.join(place, 'node_modules');
  await mkdir(place, { recursive: true });
  for (const name of ['package.json', 'package-lock.json'])
    await copyFile(path.join(from, name), path.join(place, name));
  const bin = path.join(root, 'usr/local/bin');
  await mkdir(bin, { recursive: true });
  await symlink(`../../../${PLACE}/node_modules/${nodePackage}/bin/node`, path.join(bin, 'node'));
  for (const command of CLI_COMMANDS)
    await symlink(`../../../${PLACE}/node_modules/.bin/${command}`, path.join(bin, command));

  // This process's Node comes first, so that npm runs on it and not on an older one of the host.
  const env = {
    ...process.env,
    PATH: `${path.dirname(process.execPath)}:${process.env.PATH ?? ''}`,
    NODE_ENV: 'production',
    HOME: path.join(scratch, 'home'),
  };
  const cache = path.join(env.HOME, 'npm');
  const settings = path.join(scratch, 'npmrc');
  await mkdir(env.HOME);
  await writeFile(settings, await npmSettings(signal), { mode: 0o600 });
  await sandbox.give([root, env.HOME, settings], { recursive: true });
  using _poll = reportGrowth(cache, context);
  await sandbox.run(
    [
      'npm',
      'ci',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      '--no-update-notifier',
      '--loglevel=http',
      '--omit=dev',
      '--os=linux',
      `--cpu=${process.arch}`,
      '--libc=glibc',
      `--cache=${cache}`,
      `--logs-dir=${path.join(env.HOME, 'npm-logs')}`,
      `--userconfig=${settings}`,
    ],
    { what: 'npm ci of the CLIs', cwd: place, deadline: 1_800_000, signal, env, onLine: context.log },
  );
  context.progress({ message: 'placing binaries' });
  for (const { package: name, script } of CLI_INSTALL_SCRIPTS) {
    const cwd = path.join(modules, name);
    await sandbox.run([process.execPath, script], {
      what: `install script of ${name}`,
      cwd,
      deadline: 120_000,
      signal,
      env,
      onLine: context.log,
    });
  }
  // Headers and manuals of Node; npm's own record of the tree names nothing that is used.
  const unused = ['include', 'share', 'CHANGELOG.md', 'README.md'].map((part) =>
    path.join(modules, nodePackage, part),
  );
  await sandbox.run(['rm', '-rf', '--', ...unused], { what: 'removing manuals', deadline: 60_000, signal });
  await normaliseModesIn(sandbox, root, signal);

  const contents: Record<string, string> = {};
  const direct: unknown = JSON.parse(await readFile(path.join(from, 'package.json'), 'utf8'));
  const names =
    direct !== null && typeof direct === 'object' && 'dependencies' in direct
      ? Object.keys(direct.dependencies ?? {})
      : [];
  for (const name of [...names, nodePackage]) {
    contents[name] = await packageVersion(path.join(modules, name, 'package.json'));
  }
  return contents;
}

/** The caller's own settings of npm (a registry, its token): the sandbox cannot read them where they are. */
async function npmSettings(signal: AbortSignal): Promise<string> {
  const options = { what: 'reading npm settings', deadline: 60_000, signal };
  const [file = ''] = (await run(['npm', 'config', 'get', 'userconfig'], options)).slice(-1);
  return readFile(file, 'utf8').catch(() => '');
}

/** Reports the size of npm's cache twice a second: the bytes fetched so far (npm itself says nothing of them). */
function reportGrowth(cache: string, context: FillContext): Disposable {
  let measuring = false;
  const timer = setInterval(() => {
    if (measuring) return;
    measuring = true;
    treeBytes(cache)
      .then((bytes) => {
        const fraction = Math.min(0.95, bytes / APPROXIMATE_DOWNLOAD.clis);
        context.progress({ message: 'fetching and unpacking', bytes, fraction });
      })
      .finally(() => {
        measuring = false;
      });
  }, 500);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

async function treeBytes(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  let bytes = 0;
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    bytes += await stat(path.join(entry.parentPath, entry.name)).then(
      (found) => found.size,
      () => 0,
    );
  }
  return bytes;
}
