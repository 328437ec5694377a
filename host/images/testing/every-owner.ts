/**
 * For the tests of this folder: a layer with everything that depends on who makes it, namely owners, special modes, a file
 * capability and devices, in folders of more than one block. As a program it builds the layer in a sandbox of its own, in the cache
 * that is its argument, and prints the layer's sha256.
 */
import path from 'node:path';
import { ensureLayer } from '../layer.ts';
import { clearLeftovers } from '../leftovers.ts';
import { cacheFiles, type Layer } from '../manifest.ts';
import { openSandbox, type Sandbox } from '../sandbox.ts';

const DEVICES = { console: [5, 1], null: [1, 3], wide: [259, 300] } as const;

const nodes = Object.entries(DEVICES).map(([name, [major, minor]]) => `mknod ${name} c ${major} ${minor}`);

const script = (devices: string): string => `
  cd "$1" && mkdir -p dev etc bin many log && chmod 2755 log && chown 0:42 etc
  echo root > etc/root && echo person > etc/person && chown 1000:1000 etc/person && chmod 600 etc/person
  cp /bin/true bin/ping && setcap cap_net_raw+ep bin/ping
  cp /bin/true bin/su && chmod 4755 bin/su && ln bin/su bin/other && ln -s su bin/link
  for number in $(seq 400); do echo $number > many/a-rather-long-name-for-a-file-$number; done
  for number in $(seq 300); do ln -s null dev/a-rather-long-name-for-a-link-$number; done
  cd dev && umask 0 && ${devices}`;

/** Builds that layer; its devices are real nodes where the sandbox may make them. */
export function buildEveryOwner(cacheDir: string, sandbox: Sandbox, signal: AbortSignal): Promise<Layer> {
  const devices = sandbox.confined ? `mkfifo ${Object.keys(DEVICES).join(' ')}` : nodes.join(' && ');
  return ensureLayer(
    {
      name: 'base',
      id: '0123456789abcdef',
      devices: DEVICES,
      async fill(root) {
        await sandbox.give([root]);
        await sandbox.run(['sh', '-ec', script(devices), 'sh', root], {
          what: 'filling the layer',
          deadline: 60_000,
          signal,
          env: { ...process.env, PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
        });
        return {};
      },
    },
    { cacheDir, sandbox, signal, progress: () => undefined, log: () => undefined },
  );
}

if (process.argv[1] === import.meta.filename) {
  const cacheDir = process.argv[2] ?? '';
  const signal = AbortSignal.timeout(90_000);
  await using sandbox = await openSandbox({
    folder: cacheFiles(cacheDir).tmpDir,
    sharedFolder: path.join(cacheDir, 'shared'),
    signal,
    onFallback: (why) => {
      throw new Error(why);
    },
  });
  await clearLeftovers(cacheDir, sandbox);
  const { sha256 } = await buildEveryOwner(cacheDir, sandbox, signal);
  console.log(sha256);
}
