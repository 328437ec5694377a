/**
 * The agent as V8 keeps it once it has read it: compiled when the image is built and not at every start, which is most of what the
 * agent takes to start where processors are emulated. V8 takes compiled code only from its own version; else it compiles.
 */
import { run } from './run.ts';

/** A script whose value is a function of CommonJS's five names. */
export const WRAPPER = ['(function (exports, require, module, __filename, __dirname) {', '})'] as const;

/** What is started: runs `agent.cjs` beside it, from `agent.code` where that fits. Without `import`, which reads all of each module of Node. */
export const START = `const fs = process.getBuiltinModule('node:fs');
const { createRequire } = process.getBuiltinModule('node:module');
const { Script } = process.getBuiltinModule('node:vm');
const folder = import.meta.dirname;
const filename = folder + '/agent.cjs';
const cachedData = fs.readFileSync(folder + '/agent.code');
const script = new Script(fs.readFileSync(filename, 'utf8'), { filename, cachedData });
const module = { exports: {} };
script.runInThisContext()(module.exports, createRequire(filename), module, filename, folder);
`;

/** Compiles all of a file at once. The same text gives the same bytes: V8's random numbers are fixed. What fixes them counts as how it compiles, so it is undone. */
const COMPILE = `const fs = process.getBuiltinModule('node:fs');
const v8 = process.getBuiltinModule('node:v8');
const { Script } = process.getBuiltinModule('node:vm');
const [text, code] = process.argv.slice(1);
v8.setFlagsFromString('--no-lazy');
const script = new Script(fs.readFileSync(text, 'utf8'), { filename: 'agent.cjs' });
for (const flag of ['--lazy', '--hash-seed=0', '--random-seed=0']) v8.setFlagsFromString(flag);
fs.writeFileSync(code, script.createCachedData());`;

/** Compiles a script to `code` with this process's Node. Throws `image_build_failed`. */
export async function compileScript(text: string, code: string, signal: AbortSignal): Promise<void> {
  await run([process.execPath, '--hash-seed=1', '--random-seed=1', '-e', COMPILE, text, code], {
    what: 'compiling the agent',
    deadline: 60_000,
    signal,
    env: {},
  });
}
