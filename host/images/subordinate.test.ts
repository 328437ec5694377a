import { expect, test } from 'vitest';
import { firstRange } from './subordinate.ts';

test('the first whole range of a user counts, by name or by number', () => {
  const file = 'other:100000:65536\nanna:165536:1000\nanna:300000:65536\n1007:400000:65537\nbroken\n';
  expect(firstRange(file, 'anna', 1001)).toBe(300_000);
  expect(firstRange(file, 'ben', 1007)).toBe(400_000);
  expect(firstRange(file, 'carl', 1008)).toBeUndefined();
  expect(firstRange('', 'anna', 1001)).toBeUndefined();
});
