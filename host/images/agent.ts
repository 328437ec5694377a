/** The agent layer: the guest agent as one bundled file with its compiled code, its terminal library, and the files of `images/files/`. */
import { access, cp, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { build, type Message, type Plugin } from 'esbuild';
import { PolydevError } from '../../protocol/errors.ts';
import { compileScript, START, WRAPPER } from './compile.ts';
import { hashTree, layerId, sha256 } from './identity.ts';
import { type LayerPlan, normaliseModes, packageVersion } from './layer.ts';

const PLACE = 'opt/polydev/agent';

/** The terminal library stays outside of the bundle, because it loads a native addon from its own folder. */
const NATIVE_PACKAGES: readonly string[] = ['@lydell/node-pty', `@lydell/node-pty-linux-${process.arch}`];

/**
 * Node's own modules without the names of an ES module: making those reads every property of each, and one of node:http
 * loads a whole HTTP client (measured: a third of what the agent takes to start).
 */
const BUILTINS: Plugin = {
  name: 'builtins',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:/ }, ({ path: name }) => ({ path: name, namespace: 'builtin' }));
    onLoad({ filter: /./, namespace: 'builtin' }, ({ path: name }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(name)});`,
    }));
  },
};

/** The agent never says in 50 languages what is wrong with a message. */
const ONE_LANGUAGE: Plugin = {
  name: 'one language',
  setup({ onLoad }) {
    onLoad({ filter: /\/zod\/v4\/locales\/index\.js$/ }, () => ({
      contents: "export { default as en } from './en.js';",
    }));
  },
};

/**
 * Bundles `guest/main.ts` of a checkout to one script for Node 24 (see WRAPPER). The text does not depend on where the
 * checkout is. Throws `image_build_failed` with esbuild's messages.
 */
export async function bundleAgent(checkout: string): Promise<string> {
  const entry = path.join(checkout, 'guest/main.ts');
  await access(entry).catch((error: unknown) => {
    throw new PolydevError('image_build_failed', `${entry} does not exist`, { cause: error });
  });
  const describe = (message: Message): string =>
    `${message.location === null ? '' : `${message.location.file}:${message.location.line}: `}${message.text}`;
  const result = await build({
    absWorkingDir: checkout,
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: 'cjs',
    platform: 'node',
    target: 'node24',
    external: ['@lydell/node-pty'],
    plugins: [BUILTINS, ONE_LANGUAGE],
    // A script has neither.
    define: { 'import.meta.dirname': '__dirname' },
    supported: { 'dynamic-import': false },
    banner: { js: WRAPPER[0] },
    footer: { js: WRAPPER[1] },
    legalComments: 'none',
    charset: 'utf8',
    logLevel: 'silent',
  }).catch((error: unknown) => {
    const errors =
      error !== null && typeof error === 'object' && 'errors' in error ? (error.errors as Message[]) : [];
    throw new PolydevError('image_build_failed', 'the guest agent does not bundle', {
      cause: error,
      lines: errors.map(describe),
    });
  });
  const output = result.outputFiles[0];
  if (output === undefined) throw new PolydevError('image_build_failed', 'esbuild wrote nothing');
  return output.text;
}

/** Plans the agent layer of a checkout. Bundles (about 0.1 s), since the bundle is part of the identity. */
export async function planAgent(checkout: string): Promise<LayerPlan> {
  const files = path.join(checkout, 'images/files');
  const bundle = await bundleAgent(checkout);
  const modules = NATIVE_PACKAGES.map((name) => ({ name, from: path.join(checkout, 'node_modules', name) }));
  const native: Record<string, unknown> = {};
  for (const { name, from } of modules) native[name] = await hashTree(from);
  const version = `${await packageVersion(path.join(checkout, 'package.json'))}+${sha256(bundle).slice(0, 8)}`;
  const id = layerId('agent', {
    bundle: sha256(bundle),
    packed: false,
    start: sha256(START),
    // Whose compiled code it holds.
    v8: process.versions.v8,
    files: await hashTree(files),
    native,
    version,
  });
  return {
    name: 'agent',
    id,
    ownedByRoot: true,
    // Small, and read at every start.
    packing: [],
    async fill(root, { signal }) {
      const contents: Record<string, string> = { agent: version };
      await cp(files, root, { recursive: true, verbatimSymlinks: true });
      const place = path.join(root, PLACE);
      for (const { name, from } of modules) {
        await cp(from, path.join(place, 'node_modules', name), { recursive: true });
        contents[name] = await packageVersion(path.join(from, 'package.json'));
      }
      await mkdir(place, { recursive: true });
      await writeFile(path.join(place, 'main.mjs'), START);
      await writeFile(path.join(place, 'agent.cjs'), bundle);
      await compileScript(path.join(place, 'agent.cjs'), path.join(place, 'agent.code'), signal);
      await writeFile(path.join(place, 'version.json'), `${JSON.stringify(contents, null, 2)}\n`);
      await normaliseModes(root);
      return contents;
    },
  };
}
