/**
 * testkit/: contract suites, fakes, the test identity provider, fault injection. This folder, structure/, guards the
 * shape of the tree itself: who may import whom, and that each folder says what it is for.
 */
import { glob, readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** What a folder's code may import, beside `node:` modules and itself. The most specific folder counts. */
const ALLOWED: Readonly<Record<string, { folders: readonly string[]; packages: readonly string[] | 'any' }>> =
  {
    protocol: { folders: [], packages: ['zod'] },
    providers: { folders: ['protocol'], packages: [] },
    guest: { folders: ['protocol', 'providers'], packages: ['@lydell/node-pty', 'zod'] },
    host: { folders: ['protocol'], packages: 'any' },
    'host/images': {
      folders: ['protocol', 'images', 'host/images', 'host/packages.ts', 'host/system'],
      packages: 'any',
    },
    'host/drivers/namespace': {
      folders: [
        'protocol',
        'host/drivers/driver.ts',
        'host/network',
        'host/images',
        'host/machines',
        'host/evidence',
        'host',
      ],
      packages: 'any',
    },
    'host/drivers/qemu': { folders: ['protocol', 'host'], packages: 'any' },
    'host/drivers/firecracker': { folders: ['protocol', 'host'], packages: 'any' },
    // Shared by the drivers of virtual machines.
    'host/drivers/vm': { folders: ['protocol', 'host'], packages: 'any' },
    controller: { folders: ['protocol', 'providers'], packages: 'any' },
    web: { folders: ['protocol'], packages: 'any' },
    images: { folders: ['protocol'], packages: [] },
    cli: {
      folders: [
        'protocol',
        'host/images',
        'host/boot-test.ts',
        'host/packages.ts',
        'host/doctor',
        'images',
        'host/config.ts',
        'controller/store/embedded.ts',
        'controller/store/database.ts',
        'web/build.ts',
        'testkit/person',
        'testkit/kvm-bench',
        'testkit/idp/people.ts',
        'bench',
      ],
      packages: 'any',
    },
    bench: { folders: ['protocol', 'cli', 'testkit'], packages: 'any' },
    testkit: {
      folders: ['protocol', 'providers', 'controller', 'host', 'guest', 'cli', 'web', 'images'],
      packages: 'any',
    },
  };

/** The one folder whose code may handle a plaintext credential, and the agent calls that carry one. */
const PLAINTEXT_CALLS = /\b(credentialFiles|installCredential)\(/;

interface Import {
  readonly file: string;
  readonly target: string;
}

async function sources(): Promise<string[]> {
  const files: string[] = [];
  for await (const file of glob(
    '{protocol,providers,guest,host,controller,web,images,cli,bench,testkit}/**/*.{ts,tsx}',
    {
      cwd: ROOT,
      exclude: (name) => name.includes('node_modules') || name.includes('dist'),
    },
  )) {
    if (!file.endsWith('.d.ts')) files.push(file);
  }
  return files.sort();
}

async function importsOf(file: string): Promise<Import[]> {
  const text = await readFile(path.join(ROOT, file), 'utf8');
  const found = text.matchAll(
    /(?:^|\n)\s*(?:import|export)\s(?:[^'";]*?\sfrom\s)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/g,
  );
  return Array.from(found, (m) => ({ file, target: m[1] ?? m[2] ?? '' })).filter((i) => i.target !== '');
}

function ruleFor(file: string) {
  const folders = Object.keys(ALLOWED).filter((f) => file.startsWith(`${f}/`));
  return folders.sort((a, b) => b.length - a.length)[0];
}

function violation({ file, target }: Import): string | undefined {
  const folder = ruleFor(file);
  const rule = folder === undefined ? undefined : ALLOWED[folder];
  if (folder === undefined || rule === undefined) return `${file}: no rule for its folder`;
  if (target.startsWith('node:')) return undefined;
  if (target.startsWith('.')) {
    const resolved = path.join(path.dirname(file), target);
    const inside = [folder, ...rule.folders].some((f) => resolved === f || resolved.startsWith(`${f}/`));
    // Two drivers never import each other, whatever else a driver may use of host/.
    const driver = /^host\/drivers\/([a-z]+)\//;
    const from = driver.exec(file)?.[1];
    const to = driver.exec(resolved)?.[1];
    if (from !== undefined && to !== undefined && from !== to && to !== 'vm')
      return `${file} imports another driver: ${resolved}`;
    return inside ? undefined : `${file} imports ${resolved}`;
  }
  if (rule.packages === 'any') return undefined;
  const name = target.startsWith('@') ? target.split('/').slice(0, 2).join('/') : target.split('/')[0];
  return rule.packages.includes(name ?? '') ? undefined : `${file} imports the package ${target}`;
}

/** Tests may use vitest and anything of the test kit. */
const isTest = (file: string) => /\.test\.tsx?$/.test(file) || file.includes('/testing/');

describe('the shape of the tree', () => {
  it('keeps the import boundaries', async () => {
    const files = (await sources()).filter((f) => !isTest(f));
    expect(files.length).toBeGreaterThan(50);
    const imports = (await Promise.all(files.map(importsOf))).flat();
    expect(imports.map(violation).filter((v) => v !== undefined)).toEqual([]);
  });

  it('lets only the vault handle plaintext credentials in the controller', async () => {
    const files = (await sources()).filter((f) => f.startsWith('controller/') && !isTest(f));
    const offenders: string[] = [];
    for (const file of files) {
      const text = await readFile(path.join(ROOT, file), 'utf8');
      const allowed = file.startsWith('controller/vault/') || file === 'controller/hosts/agent-client.ts';
      if (!allowed && PLAINTEXT_CALLS.test(text)) offenders.push(file);
    }
    expect(offenders).toEqual([]);
  });

  it('opens each top folder with its charter', async () => {
    const files = await sources();
    const missing: string[] = [];
    for (const folder of Object.keys(ALLOWED)) {
      const texts = await Promise.all(
        files.filter((f) => f.startsWith(`${folder}/`)).map((f) => readFile(path.join(ROOT, f), 'utf8')),
      );
      if (!texts.some((text) => text.includes(` ${folder}/: `))) missing.push(folder);
    }
    expect(missing).toEqual([]);
  });

  it('names no machine path of a developer and focuses no test', async () => {
    const offenders: string[] = [];
    for (const file of await sources()) {
      if (file === 'testkit/structure/imports.test.ts') continue;
      const text = await readFile(path.join(ROOT, file), 'utf8');
      if (/\b(it|test|describe)\.(only|skip|todo)\b|@ts-ignore/.test(text)) offenders.push(file);
    }
    expect(offenders).toEqual([]);
  });
});
