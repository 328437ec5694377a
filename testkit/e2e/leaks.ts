/** Looks, with the host's own tools, for anything an installation has left behind. */
import { readdir, readFile } from 'node:fs/promises';
import { execa } from 'execa';

export interface Traces {
  readonly processes: string[];
  readonly mounts: string[];
  readonly loops: string[];
  readonly namespaces: string[];
  readonly interfaces: string[];
  readonly cgroups: string[];
}

/**
 * Everything on this computer that carries one of the marks (an instance's name, its data directory): processes by
 * command line, mounts, loop devices by the file behind them, named network namespaces, interfaces, control groups. Independent of the host service's own audit.
 */
export async function tracesOf(marks: readonly string[]): Promise<Traces> {
  const marked = (text: string) => marks.some((mark) => text.includes(mark));
  const processes: string[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue;
    const argv = (await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ');
    if (marked(argv) && !argv.includes('vitest')) processes.push(`${entry} ${argv.trim().slice(0, 200)}`);
  }
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8');
  const mounts = mountinfo
    .split('\n')
    .filter((line) => marked(line))
    .map((line) => line.split(' ')[4] ?? '');
  const loops = (await execa('losetup', ['--all', '--noheadings'], { timeout: 10_000 })).stdout
    .split('\n')
    .filter(marked);
  const namespaces = (await readdir('/run/netns').catch(() => [])).filter(marked);
  const links = await execa('ip', ['-brief', 'link'], { timeout: 10_000 });
  const interfaces = links.stdout.split('\n').filter(marked);
  const found = await execa('find', ['/sys/fs/cgroup', '-maxdepth', '5', '-type', 'd'], {
    timeout: 30_000,
    reject: false,
  });
  const cgroups = found.stdout.split('\n').filter(marked);
  return { processes, mounts, loops, namespaces, interfaces, cgroups };
}

export const NO_TRACES: Traces = {
  processes: [],
  mounts: [],
  loops: [],
  namespaces: [],
  interfaces: [],
  cgroups: [],
};
