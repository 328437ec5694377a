import { expect, it } from 'vitest';
import { lowHalfIsNot } from './seccomp.ts';

const passes = (argument: bigint, values: [number, ...number[]]): boolean =>
  lowHalfIsNot(1, values).some(({ value, valueTwo }) => (argument & BigInt(value)) === BigInt(valueTwo));

it('refuses exactly the values, whatever is in the upper half', () => {
  const high = 1n << 32n;
  const negative = 0xffffffff_00000000n;
  for (const values of [[64], [0x5412, 0x541c]] as [number, ...number[]][]) {
    for (const value of values) {
      for (const upper of [0n, high, negative]) expect(passes(upper | BigInt(value), values)).toBe(false);
      for (let bit = 0n; bit < 32n; bit++) {
        const other = BigInt(value) ^ (1n << bit);
        expect(passes(other, values)).toBe(!values.includes(Number(other)));
      }
    }
  }
  expect(passes(0x5413n, [0x5412, 0x541c])).toBe(true);
  expect(passes(negative | 0x80045430n, [0x5412, 0x541c])).toBe(true);
});
