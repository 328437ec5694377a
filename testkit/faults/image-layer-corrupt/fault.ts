import { readFile, writeFile } from 'node:fs/promises';
import type { Fault } from '../fault.ts';
import { copyImages } from '../images.ts';

export const imageLayerCorrupt: Fault = {
  name: 'image-layer-corrupt',
  expect: 'image_layer_corrupt',
  host: async (config) => {
    const copy = await copyImages(config);
    // The superblock stays: it mounts, and the agent's text is broken.
    const bytes = await readFile(copy.agent);
    bytes.fill(0x2f, 16_384);
    await writeFile(copy.agent, bytes);
    return { imageCacheDir: copy.folder };
  },
};
