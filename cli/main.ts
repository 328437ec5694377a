/** The entry behind `./polydev`: parses arguments, runs one command, turns errors into words and an exit code. */
import { Command, InvalidArgumentError, Option } from 'commander';
import type { VirtualDriver } from '../bench/virtual.ts';
import { ProviderId } from '../protocol/ids.ts';
import { connectApi } from './api.ts';
import { createOutput, describeError } from './output.ts';
import { readSettings } from './settings.ts';
import type { KvmChoice } from './test-kvm.ts';

const program = new Command('polydev')
  .description("Connects an AI coding CLI to a person's own account from any web browser.")
  .option('--data <dir>', 'data directory (default: /var/lib/polydev as root, or $POLYDEV_DATA)')
  .option('--no-install', 'never install anything; say what is missing instead')
  .showHelpAfterError('(./polydev --help lists the commands)');

const globals = () => {
  const options = program.opts<{ data?: string; install: boolean }>();
  return { settings: readSettings(options), install: options.install };
};

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('a whole number is wanted');
  return value;
}

/** Aborts at the first Ctrl-C or SIGTERM; a second one ends the process at once. */
function interruptible(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => {
      controller.abort(new Error(name));
      process.once(name, () => process.exit(130));
    });
  }
  return controller.signal;
}

program
  .command('up')
  .description('install what is missing, build the golden image once, start everything, print the URL')
  .option('--port <port>', "the dashboard's port", wholeNumber, 4000)
  .option('--bind <address>', 'the address to listen on', '127.0.0.1')
  .option('--public-url <url>', 'where people reach it when a reverse proxy stands in front')
  .option('--json', 'print one JSON line when ready', false)
  .option('--no-install', 'never install anything; say what is missing instead')
  .addOption(
    new Option('--uplink <kind>', 'nat: machines reach public addresses; none: they reach nothing outside')
      .choices(['nat', 'none'])
      .default('nat'),
  )
  .addOption(
    new Option('--driver <name>', 'what runs machines; auto: the fastest that really runs a guest here')
      .choices(['auto', 'firecracker', 'namespace', 'qemu', 'qemu-kvm'])
      .default('auto'),
  )
  .option(
    '--snapshot-start',
    'virtual machines: once one has booted, browser machines start as copies of it',
    false,
  )
  .option(
    '--keep-failed',
    'keep the machines of logins that fail for a while (./polydev settings changes it)',
  )
  .action(
    async (options: {
      port: number;
      keepFailed?: boolean;
      bind: string;
      json: boolean;
      install: boolean;
      uplink: 'nat' | 'none';
      publicUrl?: string;
      driver: 'auto' | 'firecracker' | 'namespace' | 'qemu' | 'qemu-kvm';
      snapshotStart: boolean;
    }) => {
      const { settings, install } = globals();
      const { up } = await import('./up.ts');
      await up(settings, { ...options, install: install && options.install }, createOutput());
    },
  );

program
  .command('down')
  .description('stop what `up` started with this data directory')
  .action(async () => {
    const { down } = await import('./down.ts');
    await down(globals().settings, createOutput());
  });

program
  .command('sign-in')
  .description('print a new one-time sign-in link of the dashboard')
  .action(async () => {
    const { newSignInLink } = await import('./up.ts');
    createOutput().result(await newSignInLink(globals().settings));
  });

program
  .command('connect')
  .description('connect a provider: run one login session and watch it')
  .argument('<provider>', `one of: ${ProviderId.options.join(', ')}`)
  .option(
    '--test-idp',
    'sign in at the built-in test identity provider, played by a robot; needs no internet',
    false,
  )
  .option('--user <id>', 'whose account (default: the operator)')
  .option('--account <name>', 'a label for one of several accounts')
  .option('--expires <seconds>', 'how long the person has', wholeNumber)
  .option('--keep-failed', 'keep the machine for a while if the login fails')
  .option('--no-keep-failed', 'never keep it, whatever the setting says')
  .option('--json', 'print the timeline as JSON lines', false)
  .option('--email <email>', 'with --test-idp: who signs in; some names choose a fault')
  .option('--deny', 'with --test-idp: the person refuses consent', false)
  .action(
    async (
      name: string,
      options: {
        testIdp: boolean;
        user?: string;
        account?: string;
        expires?: number;
        keepFailed?: boolean;
        json: boolean;
        email?: string;
        deny: boolean;
      },
    ) => {
      const provider = ProviderId.safeParse(name);
      if (!provider.success)
        return program.error(`error: unknown provider "${name}"; known: ${ProviderId.options.join(', ')}`);
      const [{ connect }, { TEST_PERSON }] = await Promise.all([
        import('./connect.ts'),
        import('../testkit/idp/people.ts'),
      ]);
      const api = await connectApi(globals().settings);
      await connect(
        api,
        {
          provider: provider.data,
          testIdp: options.testIdp,
          json: options.json,
          user: options.user,
          account: options.account,
          expires: options.expires,
          keepFailed: options.keepFailed,
          person: {
            email: options.email ?? TEST_PERSON.email,
            password: TEST_PERSON.password,
            consent: options.deny ? 'deny' : 'allow',
          },
        },
        createOutput(),
        interruptible(),
      );
    },
  );

const machines = program.command('machines').description('list, look at, stop and remove machines');
machines
  .command('list', { isDefault: true })
  .option('--all', 'with those that are gone', false)
  .option('--json', 'print JSON', false)
  .action(async (options: { all: boolean; json: boolean }) => {
    const { listMachines } = await import('./machines.ts');
    await listMachines(await connectApi(globals().settings), options, createOutput());
  });
machines
  .command('show')
  .argument('<id>')
  .option('--json', 'print JSON', false)
  .action(async (id: string, options: { json: boolean }) => {
    const { showMachine } = await import('./machines.ts');
    await showMachine(await connectApi(globals().settings), id, options, createOutput());
  });
for (const action of ['stop', 'hibernate', 'resume'] as const) {
  machines
    .command(action)
    .argument('<id>')
    .action(async (id: string) => {
      const { moveMachine } = await import('./machines.ts');
      await moveMachine(await connectApi(globals().settings), action, id, createOutput());
    });
}
machines
  .command('rm')
  .argument('[ids...]')
  .option('--all', 'every machine', false)
  .option('--json', 'print JSON', false)
  .action(async (ids: string[], options: { all: boolean; json: boolean }) => {
    const { removeMachines } = await import('./machines.ts');
    await removeMachines(await connectApi(globals().settings), ids, options, createOutput());
  });

program
  .command('settings')
  .description('show what is kept how long, and quotas; change them: settings keepFailed=true keepAtMost=3')
  .argument('[changes...]', 'name=value')
  .option('--json', 'print JSON', false)
  .action(async (changes: string[], options: { json: boolean }) => {
    const { settingsCommand } = await import('./clean-up.ts');
    await settingsCommand(await connectApi(globals().settings), changes, options, createOutput());
  });

program
  .command('clean-up')
  .description('show what stays for a while and goes by itself')
  .option('--json', 'print JSON', false)
  .action(async (options: { json: boolean }) => {
    const { showCleanUp } = await import('./clean-up.ts');
    await showCleanUp(await connectApi(globals().settings), options, createOutput());
  });

program
  .command('evidence')
  .description('write everything that is known of a machine into one archive; also after it is gone')
  .argument('<id>')
  .option('--out <file>', 'where to write it (default: <id>.tar.gz)')
  .action(async (id: string, options: { out?: string }) => {
    const { writeEvidence } = await import('./evidence.ts');
    await writeEvidence(await connectApi(globals().settings), id, { out: options.out }, createOutput());
  });

program
  .command('doctor')
  .description('check this host for everything that a machine needs, by trying it')
  .option('--json', 'print JSON', false)
  .option('--port <port>', 'the port that `up` would get (default: as it was started last)', wholeNumber)
  .option('--bind <address>', 'the address that `up` would listen on (default: likewise)')
  .action(async (options: { json: boolean; port?: number; bind?: string }) => {
    const { doctor } = await import('./doctor.ts');
    process.exitCode = await doctor(globals().settings, options, createOutput(), interruptible());
  });

const image = program.command('image').description('build, prove, choose and clear away golden images');
const suite = () => new Option('--suite <name>', 'the Debian suite (default: that of the recipe)');
const mirror = () => new Option('--mirror <uri>', "a Debian mirror instead of the host's own apt sources");
image
  .command('build')
  .description('build what is not in the cache, verify it, boot a machine from it, make it current')
  .option('--vm', 'also the kernel and initramfs of virtual machines', false)
  .option('--locked', 'refuse packages of other versions than the lock names', false)
  .addOption(suite())
  .addOption(mirror())
  .action(async (options: { vm: boolean; locked: boolean; suite?: string; mirror?: string }) => {
    const { buildImageHere, ensureVm } = await import('./image.ts');
    const { ensurePackages, RUN_PACKAGES } = await import('./packages.ts');
    const output = createOutput();
    const signal = interruptible();
    const { settings, install } = globals();
    // An ordinary user builds layers only; what that needs is checked by the build.
    if (process.getuid?.() === 0) await ensurePackages(RUN_PACKAGES, { install, output, signal });
    const id = await buildImageHere(settings, options, { output, signal });
    if (options.vm) await ensureVm(settings, { output, signal });
    output.result(id);
  });
image
  .command('verify')
  .description('check the current image again, without starting it')
  .action(async () => {
    const { verifyCurrentImage } = await import('./image.ts');
    await verifyCurrentImage(globals().settings, { output: createOutput(), signal: interruptible() });
  });
image
  .command('use')
  .description('make an image of the cache the one that new machines start from')
  .argument('<id>', 'its id, or the beginning of it')
  .action(async (id: string) => {
    const { useImage } = await import('./image.ts');
    await useImage(globals().settings, id, { output: createOutput(), signal: interruptible() });
  });
image
  .command('gc')
  .description('remove images and layers that no machine and no installation on this host needs')
  .action(async () => {
    const { collectImages } = await import('./image.ts');
    await collectImages(globals().settings, createOutput());
  });
image
  .command('outdated')
  .description('say what of the current image could be newer; changes nothing')
  .option('--json', 'print JSON', false)
  .addOption(suite())
  .addOption(mirror())
  .action(async (options: { json: boolean; suite?: string; mirror?: string }) => {
    const { outdatedImage } = await import('./image.ts');
    await outdatedImage(globals().settings, options, { output: createOutput(), signal: interruptible() });
  });
image
  .command('lock')
  .description("write the versions of the current image's packages into the recipe")
  .addOption(suite())
  .action(async (options: { suite?: string }) => {
    const { lockImage } = await import('./image.ts');
    await lockImage(globals().settings, options.suite, createOutput());
  });
image
  .command('list')
  .description('the images of the cache, newest first; the current one is marked')
  .option('--json', 'print JSON', false)
  .action(async (options: { json: boolean }) => {
    const { listImages } = await import('./image.ts');
    await listImages(globals().settings, options, createOutput());
  });

program
  .command('test')
  .description('install what the tests need and run them all, or only the named parts')
  .argument(
    '[parts...]',
    'check (lint, types, imports), unit, faults, crash, e2e; machines and kvm only by name',
  )
  .option('--no-install', 'never install anything; say what is missing instead')
  .addOption(
    new Option('--driver <name>', 'of the part kvm: the contract of this driver').choices([
      'firecracker',
      'qemu',
    ]),
  )
  .option('--name <pattern>', 'of the part kvm: tests whose name has this')
  .action(async (parts: string[], options: { install: boolean } & KvmChoice) => {
    const { test } = await import('./test.ts');
    const { settings, install } = globals();
    process.exitCode = await test(
      settings,
      { ...options, parts, install: install && options.install },
      createOutput(),
      interruptible(),
    );
  });

program
  .command('bench')
  .description('measure, side by side in one run, and print a table')
  .argument('<name>', 'start: cold start of a browser machine, and claim of a warm one')
  .addOption(
    new Option('--driver <name>', 'virtual machines that boot, and copies; nothing has to run').choices([
      'qemu',
      'qemu-kvm',
      'firecracker',
    ]),
  )
  .option('--emulated', 'with --driver: in an emulated computer that has KVM, where this one has none', false)
  .option('--runs <n>', 'how often', wholeNumber, 10)
  .option('--json', 'print JSON', false)
  .action(
    async (
      name: string,
      options: { runs: number; json: boolean; emulated: boolean; driver?: VirtualDriver },
    ) => {
      if (name !== 'start') program.error(`error: unknown benchmark "${name}"; known: start`);
      const { driver, runs, json, emulated } = options;
      if (emulated && (driver === undefined || driver === 'qemu')) {
        program.error('error: --emulated is for --driver qemu-kvm and --driver firecracker');
      }
      if (driver !== undefined) {
        const { benchVirtual } = await import('../bench/emulated.ts');
        const wanted = { driver, runs, json, emulated };
        return benchVirtual(globals().settings, wanted, createOutput(), interruptible());
      }
      const { benchStart } = await import('../bench/start.ts');
      await benchStart(globals().settings, options, createOutput(), interruptible());
    },
  );

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`${describeError(error)}\n`);
  process.exitCode = 1;
}
