import { rm } from 'node:fs/promises';
import type { Fault } from '../fault.ts';
import { copyImages } from '../images.ts';

export const imageLayerMissing: Fault = {
  name: 'image-layer-missing',
  expect: 'image_layer_missing',
  host: async (config) => {
    const copy = await copyImages(config);
    await rm(copy.agent);
    return { imageCacheDir: copy.folder };
  },
};
