/**
 * The part of verification that runs in its own namespaces (see verify.ts): mounts the stack below `scratch`, runs the
 * checks, prints a VerifyReply as one line of JSON. Its mounts end with it. Mounts nothing if it sees the host's
 * network, since then it was not started through verify.ts.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import path from 'node:path';
import type { z } from 'zod';
import { runChecks } from './checks.ts';
import { VerifyReply, VerifyRequest } from './verify.ts';

const mount = (...args: string[]): void => {
  execFileSync('mount', args, { stdio: ['ignore', 'inherit', 'inherit'], timeout: 30_000 });
};

const request = VerifyRequest.parse(JSON.parse(process.argv[2] ?? ''));
if (Object.keys(networkInterfaces()).some((name) => name !== 'lo')) {
  throw new Error('this must run in a network namespace of its own');
}
mount('-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', request.scratch);
const points = request.layers.map((layer, index) => {
  const point = path.join(request.scratch, `layer${index}`);
  mkdirSync(point);
  mount('-t', 'erofs', '-o', 'ro,loop,nodev', layer, point);
  return point;
});
const root = path.join(request.scratch, 'root');
mkdirSync(root);
mount(
  '-t',
  'overlay',
  '-o',
  `ro,lowerdir=${[...points].reverse().join(':')}${points.length === 1 ? `:${points[0]}` : ''}`,
  'overlay',
  root,
);
mount('-t', 'proc', 'proc', path.join(root, 'proc'));
mount('-t', 'tmpfs', '-o', 'mode=1777', 'tmpfs', path.join(root, 'tmp'));
mount('-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', path.join(root, 'run'));
mount('-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', path.join(root, 'dev'));
for (const device of ['null', 'zero', 'urandom', 'random']) {
  execFileSync('touch', [path.join(root, 'dev', device)], { timeout: 5_000 });
  mount('--bind', path.join('/dev', device), path.join(root, 'dev', device));
}

const reply: z.infer<typeof VerifyReply> = await runChecks(root);
console.log(JSON.stringify(VerifyReply.parse(reply)));
