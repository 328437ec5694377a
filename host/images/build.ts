/**
 * host/images/: builds, keeps, mounts and verifies golden images; what goes into one is written in `images/`.
 * This file puts it together: recipe -> layers -> verified image -> current.
 */
import { mkdir } from 'node:fs/promises';
import type { ImageId } from '../../protocol/ids.ts';
import { planAgent } from './agent.ts';
import { type BaseSettings, planBase } from './base.ts';
import { planClis } from './clis.ts';
import { imageId } from './identity.ts';
import { ensureLayer, findLayer, type LayerPlan, type StageProgress } from './layer.ts';
import { clearLeftovers } from './leftovers.ts';
import { takeLock } from './lock.ts';
import {
  type BootRecord,
  cacheFiles,
  type ImageManifest,
  type Layer,
  replaceFile,
  type UnverifiedImage,
} from './manifest.ts';
import { requireBuildHost } from './packages.ts';
import { openSandbox } from './sandbox.ts';
import { openImageStore } from './store.ts';
import { verifyImage } from './verify.ts';

const STAGES = ['prepare', 'base', 'clis', 'agent', 'verify', 'boot', 'activate'] as const;

export interface BuildProgress extends StageProgress {
  readonly stage: (typeof STAGES)[number];
  /** Counts from 0. */
  readonly stageIndex: number;
  readonly stages: number;
  /** Milliseconds since this stage began. */
  readonly elapsed: number;
}

export interface BuildOptions extends BaseSettings {
  /** Where layers and images are kept; shared by all checkouts of this host. */
  readonly cacheDir: string;
  /** The checkout whose recipe, lock and agent are built. */
  readonly checkout: string;
  readonly signal: AbortSignal;
  /** Boots an image of the cache to the end of its checklist; throws when that fails. See host/boot-test.ts. */
  readonly bootTest: (image: string) => Promise<BootRecord>;
  readonly onProgress?: (progress: BuildProgress) => void;
  /** Takes every line that the tools print. */
  readonly log?: (line: string) => void;
}

/** The layers of a checkout, bottom to top, with their identities; builds nothing (about 0.2 s). */
export async function planImage(
  checkout: string,
  settings: BaseSettings = {},
): Promise<{ id: ImageId; layers: LayerPlan[] }> {
  const layers = [await planBase(checkout, settings), await planClis(checkout), await planAgent(checkout)];
  return { id: imageId(layers.map((layer) => layer.id)), layers };
}

/**
 * Builds the image of a checkout and makes it current. Finished layers are taken from the cache, so a build that was
 * stopped goes on where it was; one build runs per cache directory, others wait for it. An image becomes current only
 * after `verifyImage` passed and it has booted. Both need root: to an ordinary user it gives the image without `verified`, whose layers
 * root's build takes from the same cache. Errors: `missing_packages`, `not_root`, `configuration_invalid`, `host_out_of_space`,
 * `image_build_failed`, `image_verification_failed`; an abort throws the signal's reason.
 */
export async function buildImage(options: BuildOptions): Promise<ImageManifest | UnverifiedImage> {
  const { cacheDir, checkout, signal } = options;
  const log = options.log ?? (() => undefined);
  const files = cacheFiles(cacheDir);
  let began = performance.now();
  const reporter = (stage: BuildProgress['stage']): ((progress: StageProgress) => void) => {
    began = performance.now();
    return (progress) =>
      options.onProgress?.({
        ...progress,
        stage,
        stageIndex: STAGES.indexOf(stage),
        stages: STAGES.length,
        elapsed: Math.round(performance.now() - began),
      });
  };

  const prepare = reporter('prepare');
  prepare({ message: 'reading the recipe' });
  const plan = await planImage(checkout, options);
  const store = openImageStore(cacheDir);
  const known = await store.get(plan.id);
  const prove = async (): Promise<ImageManifest> => {
    reporter('boot')({ message: 'booting a browser machine from it' });
    await store.recordBoot(plan.id, await options.bootTest(plan.id));
    reporter('activate')({ message: `image ${plan.id} is current`, fraction: 1 });
    return store.use(plan.id);
  };
  if (known !== undefined && (await findLayers(cacheDir, plan.layers)) !== undefined) {
    return known.booted === undefined ? prove() : store.use(plan.id);
  }

  requireBuildHost();
  for (const directory of [files.layersDir, files.imagesDir, files.tmpDir, files.debsDir]) {
    await mkdir(directory, { recursive: true, mode: 0o755 });
  }
  await using _lock = await takeLock(files.lock, {
    signal,
    onWait: (pid) => prepare({ message: `waiting for the build of process ${pid}` }),
  });

  const layers = await buildLayers(plan.layers, options, reporter);
  const created = new Date().toISOString();
  const image: UnverifiedImage = { schema: 1, id: plan.id, layers, created };
  if (process.getuid?.() !== 0) return image;

  reporter('verify')({ message: 'running the checks in a closed sandbox' });
  await verifyImage(image, { cacheDir, signal, log });
  const manifest: ImageManifest = { ...image, verified: new Date().toISOString() };
  await replaceFile(files.manifest(plan.id), `${JSON.stringify(manifest, null, 2)}\n`);
  return prove();
}

/** Builds what is not in the cache, confined where the host allows it. Under the lock of builds. */
async function buildLayers(
  plans: readonly LayerPlan[],
  { cacheDir, signal, log = () => undefined }: BuildOptions,
  reporter: (stage: BuildProgress['stage']) => (progress: StageProgress) => void,
): Promise<Layer[]> {
  const found = await findLayers(cacheDir, plans);
  if (found !== undefined) return found;
  await using sandbox = await openSandbox({
    folder: cacheFiles(cacheDir).tmpDir,
    signal,
    onFallback: (why) => log(`warning: ${why}`),
  });
  await clearLeftovers(cacheDir, sandbox);
  const layers: Layer[] = [];
  for (const layer of plans) {
    const progress = reporter(layer.name);
    progress({ message: 'looking in the cache' });
    const built = await ensureLayer(layer, { cacheDir, sandbox, signal, progress, log });
    progress({ message: `ready: ${built.file}`, bytes: built.bytes, fraction: 1 });
    layers.push(built);
  }
  return layers;
}

/** The finished layers of all plans; undefined when one is missing. */
async function findLayers(cacheDir: string, plans: readonly LayerPlan[]): Promise<Layer[] | undefined> {
  const found = await Promise.all(plans.map((plan) => findLayer(cacheDir, plan)));
  const there = found.filter((layer) => layer !== undefined);
  return there.length === plans.length ? there : undefined;
}
