/** `./polydev image`: everything about golden images; and the build that `up` does when there is none. */
import { bootTest } from '../host/boot-test.ts';
import { type BaseSettings, debianArchitecture } from '../host/images/base.ts';
import { buildImage } from '../host/images/build.ts';
import { outdated } from '../host/images/outdated.ts';
import { lockFile, writePackageLock } from '../host/images/package-lock.ts';
import { openImageStore } from '../host/images/store.ts';
import { verifyImage } from '../host/images/verify.ts';
import { ensureVmParts } from '../host/images/vm.ts';
import { DEFAULT_SUITE } from '../images/recipe.ts';
import { PolydevError } from '../protocol/errors.ts';
import { formatBytes, formatDuration, type Output, table } from './output.ts';
import { type Settings, settingsPaths } from './settings.ts';

interface Run {
  readonly output: Output;
  readonly signal: AbortSignal;
}

/** Builds and verifies the image of this checkout unless it is there and current. Returns its id. */
export async function ensureImage(settings: Settings, run: Run): Promise<string> {
  const cacheDir = settingsPaths(settings).images;
  const store = openImageStore(cacheDir);
  const expected = await store.expected(settings.checkout);
  const current = await store.current();
  if (current?.id === expected) return current.id;
  if (await store.has(expected)) return (await store.use(expected)).id;
  return buildImageHere(settings, {}, run);
}

const bootTestHere = (settings: Settings, signal: AbortSignal) => (image: string) =>
  bootTest({
    image,
    imageCacheDir: settingsPaths(settings).images,
    checkout: settings.checkout,
    signal,
  });

/** Of all that the tools of a build print, what a person should know. */
const sayNotes =
  (output: Output) =>
  (line: string): void => {
    if (/^(note|warning): /.test(line)) output.say(line);
  };

/** Builds the image of this checkout, verifies and boots it, and makes it current. Returns its id. */
export async function buildImageHere(
  settings: Settings,
  base: BaseSettings,
  { output, signal }: Run,
): Promise<string> {
  const began = performance.now();
  output.say(
    'building the golden image: Debian packages, the CLIs and the guest agent (once; later runs use the cache)',
  );
  const manifest = await buildImage({
    ...base,
    cacheDir: settingsPaths(settings).images,
    checkout: settings.checkout,
    signal,
    bootTest: bootTestHere(settings, signal),
    log: sayNotes(output),
    onProgress: (p) =>
      output.progress({
        stage: p.stage,
        index: p.stageIndex + 1,
        count: p.stages,
        message: p.message,
        ...(p.fraction === undefined ? {} : { fraction: p.fraction }),
        ...(p.bytes === undefined ? {} : { bytes: p.bytes }),
      }),
  });
  if (!('verified' in manifest)) {
    output.say(
      `the layers of image ${manifest.id} are ready after ${formatDuration(performance.now() - began)}. Not done: verifying, which mounts ` +
        'them, booting a machine and making it current need root, which finds the layers in the same cache: ' +
        `sudo POLYDEV_CACHE=${settings.cacheDir} ${settings.checkout}/polydev image build`,
    );
    return manifest.id;
  }
  const sizes = manifest.layers.map((l) => `${l.name} ${formatBytes(l.bytes)}`).join(', ');
  const { booted } = manifest;
  const proof = booted === undefined ? '' : `; booted in ${formatDuration(booted.ms)} (${booted.driver})`;
  output.say(
    `image ${manifest.id} ready after ${formatDuration(performance.now() - began)} (${sizes}${proof})`,
  );
  return manifest.id;
}

/** Makes an image of the cache current, by its id or the beginning of it; boots it first when it never has. */
export async function useImage(settings: Settings, prefix: string, { output, signal }: Run): Promise<void> {
  const store = openImageStore(settingsPaths(settings).images);
  const found = (await store.list()).filter(({ id }) => id.startsWith(prefix));
  const [image] = found;
  if (image === undefined || found.length > 1) {
    const problem = image === undefined ? 'no image begins' : `${found.length} images begin`;
    throw new PolydevError('image_missing', `${problem} with "${prefix}"; ./polydev image list shows them`);
  }
  if (image.booted === undefined) {
    output.say(`booting a machine from ${image.id}, which has not been proven on this host`);
    await store.recordBoot(image.id, await bootTestHere(settings, signal)(image.id));
  }
  await store.use(image.id);
  output.result(`${image.id} is current; machines that exist keep theirs`);
}

/** Removes images and layers that nobody needs. */
export async function collectImages(settings: Settings, output: Output): Promise<void> {
  const removed = await openImageStore(settingsPaths(settings).images).prune();
  const bytes = removed.reduce((sum, file) => sum + file.bytes, 0);
  for (const { file } of removed) output.say(`removed ${file}`);
  output.result(removed.length === 0 ? 'nothing to remove' : `${formatBytes(bytes)} freed`);
}

/** Says what a new build could have newer. */
export async function outdatedImage(
  settings: Settings,
  options: BaseSettings & { json: boolean },
  { output, signal }: Run,
): Promise<void> {
  const image = await currentImage(settings);
  const newer = await outdated(image, { ...options, cacheDir: settingsPaths(settings).images, signal });
  if (options.json) {
    output.result(JSON.stringify({ image: image.id, newer }));
    return;
  }
  if (newer.length === 0) {
    output.result(`${image.id}: nothing is newer`);
    return;
  }
  const rows = newer.map((one) => [one.layer, one.name, one.has, one.could, one.security ? 'security' : '']);
  output.result(table(['LAYER', 'NAME', 'HAS', 'COULD HAVE', ''], rows));
  output.say(
    'Debian: ./polydev image lock after a build accepts what it got. CLIs: images/clis/package.json and its lock.',
  );
}

/** Writes the versions of the current image's Debian packages as those of the recipe; the next build has a new identity. */
export async function lockImage(
  settings: Settings,
  suite: string | undefined,
  output: Output,
): Promise<void> {
  const image = await currentImage(settings);
  const contents = image.layers.find(({ name }) => name === 'base')?.contents ?? {};
  await writePackageLock(settings.checkout, suite ?? DEFAULT_SUITE, debianArchitecture(), contents);
  output.result(`${lockFile(settings.checkout)}: ${Object.keys(contents).length} packages of ${image.id}`);
}

async function currentImage(settings: Settings) {
  const current = await openImageStore(settingsPaths(settings).images).current();
  if (current === undefined) {
    throw new PolydevError('image_missing', 'there is no current image; ./polydev image build makes one');
  }
  return current;
}

/** Makes the kernel and initramfs of virtual machines unless they are there. */
export async function ensureVm(settings: Settings, { output, signal }: Run): Promise<string> {
  const { checkout } = settings;
  const parts = await ensureVmParts({
    cacheDir: settingsPaths(settings).images,
    checkout,
    signal,
    log: sayNotes(output),
    progress: (message) => output.say(`virtual machines: ${message}`),
  });
  return parts.id;
}

export async function listImages(
  settings: Settings,
  options: { json: boolean },
  output: Output,
): Promise<void> {
  const store = openImageStore(settingsPaths(settings).images);
  const current = await store.current();
  const images = await store.list();
  if (options.json) {
    output.result(JSON.stringify({ current: current?.id ?? null, images }));
    return;
  }
  const lines = images.map((image) => {
    const bytes = image.layers.reduce((sum, layer) => sum + layer.bytes, 0);
    const proof = image.booted === undefined ? 'never booted here' : `booted ${image.booted.at}`;
    return `${image.id === current?.id ? '*' : ' '} ${image.id}  ${formatBytes(bytes).padStart(8)}  built ${image.created}  ${proof}`;
  });
  output.result(lines.length === 0 ? 'no image; build one with ./polydev image build' : lines.join('\n'));
}

export async function verifyCurrentImage(settings: Settings, { output, signal }: Run): Promise<void> {
  const current = await currentImage(settings);
  const checks = await verifyImage(current, { cacheDir: settingsPaths(settings).images, signal });
  output.result(`${current.id}: ${checks} checks passed`);
}
