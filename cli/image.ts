/** `./polydev image`: build, verify and list golden images; and the build that `up` does when there is none. */
import { buildImage } from '../host/images/build.ts';
import { openImageStore } from '../host/images/store.ts';
import { verifyImage } from '../host/images/verify.ts';
import { ensureVmParts } from '../host/images/vm.ts';
import { PolydevError } from '../protocol/errors.ts';
import { formatBytes, formatDuration, type Output } from './output.ts';
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
  const known = await store.get(expected);
  if (known !== undefined) {
    await store.use(known.id);
    return known.id;
  }
  return buildImageHere(settings, run);
}

export async function buildImageHere(settings: Settings, { output, signal }: Run): Promise<string> {
  const began = performance.now();
  output.say(
    'building the golden image: Debian packages, the CLIs and the guest agent (once; later runs use the cache)',
  );
  const manifest = await buildImage({
    cacheDir: settingsPaths(settings).images,
    checkout: settings.checkout,
    signal,

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
  const sizes = manifest.layers.map((l) => `${l.name} ${formatBytes(l.bytes)}`).join(', ');
  output.say(
    `image ${manifest.id} built and verified in ${formatDuration(performance.now() - began)} (${sizes})`,
  );
  return manifest.id;
}

/** Makes the kernel and initramfs of virtual machines unless they are there. */
export async function ensureVm(settings: Settings, { output, signal }: Run): Promise<string> {
  const { checkout } = settings;
  const parts = await ensureVmParts({
    cacheDir: settingsPaths(settings).images,
    checkout,
    signal,
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
    return `${image.id === current?.id ? '*' : ' '} ${image.id}  ${formatBytes(bytes).padStart(8)}  ${image.created}`;
  });
  output.result(lines.length === 0 ? 'no image; build one with ./polydev image build' : lines.join('\n'));
}

export async function verifyCurrentImage(settings: Settings, { output, signal }: Run): Promise<void> {
  const store = openImageStore(settingsPaths(settings).images);
  const current = await store.current();
  if (current === undefined) throw new PolydevError('image_missing', 'there is no current image');
  const checks = await verifyImage(current, { cacheDir: settingsPaths(settings).images, signal });
  output.result(`${current.id}: ${checks} checks passed`);
}
