/** A file of the image has other bytes than those verified. */
import { checked, linesIn, type Rule } from '../rule.ts';

export const imageLayerCorrupt: Rule = {
  name: 'image_layer_corrupt',
  prove(found) {
    const broken = (found.facts?.image?.layers ?? []).filter(({ state }) => state === 'wrong_bytes');
    if (broken.length === 0) return undefined;
    return [
      ...broken.map(({ file }) => checked(`${file}: its SHA-256 is not the one of the manifest`)),
      ...linesIn(found, ['error', 'console.log'], /mount|superblock|erofs|input\/output error|EIO|EUCLEAN/i),
    ];
  },
};
