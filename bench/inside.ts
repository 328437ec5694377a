/** Runs in the emulated computer: `node inside.ts <what is measured> <file for the report>`. */
import { writeFile } from 'node:fs/promises';
import { measureVirtual, type VirtualBench } from './virtual.ts';

const [, , wanted = '', file = ''] = process.argv;
const report = await measureVirtual(
  JSON.parse(wanted) as VirtualBench,
  ({ stage, message }) => console.log(`${stage}: ${message}`),
  AbortSignal.timeout(80 * 60_000),
);
await writeFile(file, JSON.stringify(report));
