/** The checks of an image. `root` is the mounted stack, read-only, with proc, dev, run and tmp of its own. */
import { execFile } from 'node:child_process';
import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { CLI_COMMANDS, PERSON } from '../../images/recipe.ts';
import { type Finding, readText } from './verify.ts';

const execute = promisify(execFile);

/** Runs a command in the image as the person or as root; returns its output or throws with the output as message. */
async function inImage(
  root: string,
  argv: readonly string[],
  as: 'root' | 'person' = 'person',
): Promise<string> {
  const user = as === 'root' ? [] : [`--userspec=${PERSON.uid}:${PERSON.gid}`];
  try {
    const { stdout, stderr } = await execute('chroot', [...user, root, ...argv], {
      timeout: 60_000,
      killSignal: 'SIGKILL',
      maxBuffer: 4_000_000,
      env: { PATH: '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin', HOME: '/tmp', LANG: 'C.UTF-8' },
    });
    return stdout + stderr;
  } catch (error) {
    const output = error as { stdout?: string; stderr?: string; message: string };
    throw new Error(
      `${output.stderr || output.stdout || output.message}`.trim().split('\n').slice(-3).join(' | '),
    );
  }
}

/** A file of the image, symbolic links resolved inside of it; throws if it is not there. */
async function resolveIn(root: string, file: string): Promise<string> {
  const shown = (await inImage(root, ['/usr/bin/readlink', '-e', file], 'root').catch(() => '')).trim();
  if (shown === '') throw new Error('does not exist (or is a link that leads nowhere)');
  return path.join(root, shown);
}

interface Check {
  readonly name: string;
  readonly file: string;
  readonly remedy: string;
  /** Throws, with what is wrong, when the check fails. */
  run(root: string): Promise<void>;
}

const fail = (problem: string): never => {
  throw new Error(problem);
};

const answers = (file: string, argv: readonly string[], pattern: RegExp, remedy: string): Check => ({
  name: 'runs',
  file,
  remedy,
  async run(root) {
    await resolveIn(root, file);
    const output = await inImage(root, [file, ...argv]);
    if (!pattern.test(output)) fail(`"${argv.join(' ')}" answered: ${output.trim().slice(0, 200)}`);
  },
});

const linked = (file: string): Check => ({
  name: 'libraries',
  file,
  remedy: 'remove the path-exclude of the library from images/recipe.ts, or add its package',
  async run(root) {
    const target = (await resolveIn(root, file)).slice(root.length);
    const missing = (await inImage(root, ['/usr/bin/ldd', target], 'root'))
      .split('\n')
      .filter((line) => line.includes('not found'));
    if (missing.length > 0) fail(`needs ${missing.map((line) => line.trim()).join(', ')}`);
  },
});

const absent = (file: string, why: string): Check => ({
  name: 'absent',
  file,
  remedy: `images/customize.sh must remove it: ${why}`,
  async run(root) {
    if ((await lstat(path.join(root, file)).catch(() => undefined)) !== undefined) fail('exists');
  },
});

const emptyDirectory = (file: string, ignore: readonly string[], why: string): Check => ({
  name: 'empty',
  file,
  remedy: `images/customize.sh must empty it: ${why}`,
  async run(root) {
    const names = await readdir(path.join(root, file), { recursive: true, withFileTypes: true }).catch(
      () => [],
    );
    const left = names.filter(
      (entry) => !entry.isDirectory() && !entry.isSymbolicLink() && !ignore.includes(entry.name),
    );
    if (left.length > 0)
      fail(
        `holds ${left
          .map((entry) => entry.name)
          .slice(0, 5)
          .join(', ')}`,
      );
  },
});

const owned = (file: string, uid: number, mode: number): Check => ({
  name: 'owner and mode',
  file,
  remedy: 'correct it in images/customize.sh; the uids of the image are the plain ones',
  async run(root) {
    const found = await stat(path.join(root, file)).catch(() => fail('does not exist'));
    if (found.uid !== uid) fail(`belongs to uid ${found.uid} instead of ${uid}`);
    if ((found.mode & 0o7777) !== mode)
      fail(`has mode ${(found.mode & 0o7777).toString(8)} instead of ${mode.toString(8)}`);
  },
});

const RECIPE = 'look at images/recipe.ts and build again';
const CLIS = 'look at images/clis/package.json and CLI_INSTALL_SCRIPTS in images/recipe.ts';
const UNIT = '/etc/systemd/system/polydev-agent.service';

/** Text that must not be in a file that this project or the build wrote. */
const SECRETS = [
  /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
  /\bsk-[A-Za-z0-9_-]{20,}/,
  /\bgh[pousr]_[A-Za-z0-9]{36}/,
  /_authToken\s*=\s*\S+/,
  /\b[a-z][a-z0-9+.-]*:\/\/[^\s/:@]+:[^\s/:@]+@[\w.-]+/,
];

const TAKES_CODE = `const read = (name) => require('fs').readFileSync('/opt/polydev/agent/agent.' + name);
const script = new (require('vm').Script)(read('cjs').toString(), { cachedData: read('code') });
console.log(script.cachedDataRejected ? 'refused' : 'taken');`;

export const CHECKS: readonly Check[] = [
  answers(
    '/usr/local/bin/node',
    ['--version'],
    /^v\d+\./,
    'look at node-linux-* in images/clis/package.json',
  ),
  {
    name: 'agent',
    file: '/opt/polydev/agent/main.mjs',
    remedy: 'look at guest/main.ts and host/images/agent.ts',
    run: async (root) => {
      await inImage(root, ['/usr/local/bin/node', '--check', '/opt/polydev/agent/main.mjs']);
      const code = await inImage(root, ['/usr/local/bin/node', '-e', TAKES_CODE]);
      if (code.trim() !== 'taken')
        fail(
          `its Node is not the one that compiled agent.code, and compiles again at every start: ${code.trim()}`,
        );
      if ((await readText(path.join(root, 'opt/polydev/agent/version.json')))?.includes('"agent"') !== true)
        fail('version.json beside it names no agent version');
    },
  },
  {
    name: 'agent terminal library',
    file: '/opt/polydev/agent/node_modules/@lydell/node-pty',
    remedy: 'NATIVE_PACKAGES in host/images/agent.ts must name the package of this architecture',
    run: async (root) => {
      const program =
        "import('/opt/polydev/agent/node_modules/@lydell/node-pty/index.js').then((m) => console.log(typeof (m.spawn ?? m.default.spawn)))";
      const output = await inImage(root, ['/usr/local/bin/node', '-e', program]);
      if (output.trim() !== 'function') fail(`does not load: ${output.trim()}`);
    },
  },
  ...CLI_COMMANDS.map((name) => answers(`/usr/local/bin/${name}`, ['--version'], /\d+\.\d+\.\d+/, CLIS)),
  answers('/usr/bin/chromium', ['--version'], /^Chromium \d+/m, RECIPE),
  answers('/usr/bin/Xvnc', ['-version'], /Xvnc/, RECIPE),
  answers('/usr/bin/openbox', ['--version'], /Openbox/, RECIPE),
  answers('/usr/bin/tini', ['--version'], /tini version/, RECIPE),
  answers('/usr/bin/git', ['--version'], /git version/, RECIPE),
  ...[
    '/usr/lib/chromium/chromium',
    '/usr/bin/Xvnc',
    '/usr/bin/openbox',
    '/usr/bin/xdotool',
    '/usr/bin/xclip',
  ].map(linked),
  {
    name: 'policy',
    file: '/etc/chromium/policies/managed/polydev.json',
    remedy: 'correct it below images/files/',
    run: async (root) => {
      JSON.parse(
        (await readText(path.join(root, 'etc/chromium/policies/managed/polydev.json'))) ??
          fail('does not exist'),
      );
    },
  },
  {
    name: 'fonts',
    file: '/var/cache/fontconfig',
    remedy: 'images/customize.sh must make the cache after it set the times of the font directories',
    run: async (root) => {
      const output = await inImage(root, ['/usr/bin/fc-list']);
      if (output.includes('No writable cache'))
        fail('the cache does not fit the fonts: every start would scan them');
      if (!output.includes('Liberation')) fail('Liberation is not found');
    },
  },
  {
    name: 'person',
    file: '/etc/passwd',
    remedy: 'images/customize.sh must add the person as images/recipe.ts says',
    run: async (root) => {
      const line = (await readText(path.join(root, 'etc/passwd')))
        ?.split('\n')
        .find((each) => each.startsWith(`${PERSON.name}:`));
      const [, , uid, gid, , home, shell] = (line ?? fail(`has no ${PERSON.name}`)).split(':');
      if (
        Number(uid) !== PERSON.uid ||
        Number(gid) !== PERSON.gid ||
        home !== PERSON.home ||
        shell !== PERSON.shell
      )
        fail(`says ${line}`);
      const passwords =
        (await readText(path.join(root, 'etc/shadow')))
          ?.split('\n')
          .filter((each) => /^[^:]+:\$/.test(each)) ?? [];
      if (passwords.length > 0) fail('/etc/shadow holds a password');
    },
  },
  owned(PERSON.home, PERSON.uid, 0o755),
  owned('/', 0, 0o755),
  owned('/etc', 0, 0o755),
  owned('/usr/local/bin', 0, 0o755),
  owned('/opt/polydev/agent', 0, 0o755),
  owned('/opt/polydev/agent/main.mjs', 0, 0o644),
  owned('/usr/lib/chromium/chrome-sandbox', 0, 0o4755),
  absent('/etc/hostname', 'a static name would win over the machine’s own'),
  absent('/var/lib/dbus/machine-id', 'it would be the same on every machine'),
  absent('/var/lib/systemd/random-seed', 'it would be the same on every machine'),
  absent('/etc/apt/sources.list', 'the mirror is the build host’s business'),
  emptyDirectory('/etc/apt/sources.list.d', [], 'the mirror is the build host’s business'),
  emptyDirectory('/var/lib/apt/lists', ['lock'], 'lists are stale at once'),
  emptyDirectory('/var/cache/apt', ['lock'], 'packages are not needed any more'),
  emptyDirectory('/var/log', [], 'logs belong to a machine'),
  {
    name: 'machine identity',
    file: '/etc/machine-id',
    remedy: 'images/customize.sh must leave an empty file',
    run: async (root) => {
      if ((await readText(path.join(root, 'etc/machine-id'))) !== '') fail('is missing or not empty');
      const keys = (await readdir(path.join(root, 'etc/ssh')).catch(() => [])).filter((name) =>
        name.startsWith('ssh_host_'),
      );
      if (keys.length > 0) fail(`/etc/ssh holds ${keys.join(', ')}`);
    },
  },
  {
    name: 'resolver',
    file: '/etc/resolv.conf',
    remedy: 'images/customize.sh must leave an empty regular file, which drivers bind over',
    run: async (root) => {
      const found = await lstat(path.join(root, 'etc/resolv.conf')).catch(() => fail('does not exist'));
      if (!found.isFile() || found.size > 0) fail('is a link or not empty');
    },
  },
  {
    name: 'unit',
    file: UNIT,
    remedy: 'correct the unit or its link below images/files/etc/systemd/system/',
    run: async (root) => {
      const wanted = await realpath(
        path.join(root, 'etc/systemd/system/multi-user.target.wants/polydev-agent.service'),
      ).catch(() => fail('is not enabled'));
      if (wanted !== path.join(root, UNIT)) fail(`the link leads to ${wanted.slice(root.length)}`);
      const command =
        /^ExecStart=(.+)$/m.exec((await readText(wanted)) ?? '')?.[1] ?? fail('has no ExecStart');
      for (const word of command.split(' ')) if (word.startsWith('/')) await resolveIn(root, word);
    },
  },
  {
    name: 'one owner of eth0',
    file: '/etc/systemd/network',
    remedy:
      'keep networkd with one .network file as the only one; drop the other from images/recipe.ts or images/files/',
    run: async (root) => {
      const owners: string[] = [];
      // /lib is a link to /usr/lib in the image.
      for (const directory of ['etc/systemd/network', 'usr/lib/systemd/network']) {
        for (const name of await readdir(path.join(root, directory)).catch(() => [])) {
          if (!name.endsWith('.network')) continue;
          const text = (await readText(path.join(root, directory, name))) ?? '';
          const names = /^\[Match\][^[]*^Name=(.+)$/ms.exec(text)?.[1]?.split('\n')[0] ?? '';
          if (/(^|\s)(eth0|eth\*|e\*|en\*|\*)(\s|$)/.test(names)) owners.push(`${directory}/${name}`);
        }
      }
      for (const other of [
        'usr/sbin/NetworkManager',
        'usr/sbin/dhclient',
        'sbin/dhclient',
        'sbin/ifup',
        'usr/sbin/dhcpcd',
        'usr/bin/cloud-init',
      ]) {
        if ((await stat(path.join(root, other)).catch(() => undefined)) !== undefined) owners.push(other);
      }
      if (owners.length !== 1)
        fail(owners.length === 0 ? 'nobody configures eth0' : `several would: ${owners.join(', ')}`);
      await resolveIn(root, '/etc/systemd/system/multi-user.target.wants/systemd-networkd.service');
    },
  },
  {
    name: 'no secrets',
    file: '/etc, /opt/polydev/agent, /root, /home',
    remedy: 'remove it from images/files/ or images/customize.sh',
    run: async (root) => {
      for (const directory of ['etc', 'opt/polydev/agent', 'root', 'home']) {
        for (const entry of await readdir(path.join(root, directory), {
          recursive: true,
          withFileTypes: true,
        })) {
          if (!entry.isFile() || entry.parentPath.includes('/node_modules')) continue;
          const file = path.join(entry.parentPath, entry.name);
          if ((await stat(file)).size > 4_000_000) continue;
          const text = (await readText(file)) ?? '';
          if (SECRETS.some((pattern) => pattern.test(text)))
            fail(`${file.slice(root.length)} looks as if it held a secret`);
        }
      }
    },
  },
];

/** Runs all checks, a few at a time (some start a CLI); returns what is wrong, in the order of `CHECKS`. */
export async function runChecks(
  root: string,
  checks: readonly Check[] = CHECKS,
): Promise<{ checks: number; findings: Finding[] }> {
  const results: (Finding | undefined)[] = new Array(checks.length);
  const queue = [...checks.entries()];
  const worker = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [index, check] = next;
      try {
        await check.run(root);
      } catch (error) {
        const problem = error instanceof Error ? error.message : String(error);
        results[index] = { check: check.name, file: check.file, problem, remedy: check.remedy };
      }
    }
  };
  await Promise.all([worker(), worker()]);
  return { checks: checks.length, findings: results.filter((each) => each !== undefined) };
}
