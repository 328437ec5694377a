/** Reading the kernel's mount table and mounting layers. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

/** Mount points in a mountinfo table (proc(5)), in mount order, octal escapes undone. */
export function parseMountPoints(mountinfo: string): string[] {
  return mountinfo
    .split('\n')
    .map((line) => line.split(' ')[4])
    .filter((field) => field !== undefined)
    .map((field) =>
      field.replace(/\\([0-7]{3})/g, (_all, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
    );
}

/** Mount points of this process's mount namespace that are `directory` or below it, newest first. */
export async function mountPointsBelow(directory: string): Promise<string[]> {
  const prefix = path.resolve(directory);
  const points = parseMountPoints(await readFile('/proc/self/mountinfo', 'utf8'));
  return points.filter((point) => point === prefix || point.startsWith(`${prefix}/`)).reverse();
}

/** Files behind the loop devices of this computer. Source: loop/backing_file below /sys/block. */
export async function attachedFiles(): Promise<string[]> {
  const names = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'));
  const texts = names.map((name) => readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => ''));
  return (await Promise.all(texts)).map((text) => text.trimEnd()).filter((text) => text !== '');
}
