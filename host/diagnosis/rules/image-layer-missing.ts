/** A file of the image is away or cut. */
import { checked, proof, type Rule } from '../rule.ts';

export const imageLayerMissing: Rule = {
  name: 'image_layer_missing',
  prove(found) {
    const layers = found.facts?.image?.layers ?? [];
    const broken = layers.filter(({ state }) => state === 'missing' || state === 'wrong_length');
    return proof(...broken.map(({ file, state }) => checked(`${file}: ${state.replace('_', ' ')}`)));
  },
};
