import { access, glob, readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ERRORS } from '../protocol/errors.ts';

const ROOT = path.resolve(import.meta.dirname, '..');

async function pages(): Promise<string[]> {
  const found = ['README.md'];
  for await (const file of glob('docs/**/*.md', { cwd: ROOT })) found.push(file);
  return found.sort();
}

const read = (file: string) => readFile(path.join(ROOT, file), 'utf8');

describe('the documentation', () => {
  it('explains every error code, and none that does not exist', async () => {
    const text = await read('docs/troubleshooting.md');
    const sections = Array.from(text.matchAll(/^## (.+)$/gm), (m) => m[1]).sort();
    expect(sections).toEqual(Object.keys(ERRORS).sort());
  });

  it('links to files that exist', async () => {
    const broken: string[] = [];
    let links = 0;
    for (const file of await pages()) {
      for (const [, target = ''] of (await read(file)).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
        if (/^https?:/.test(target)) continue;
        links += 1;
        const exists = await access(path.join(ROOT, path.dirname(file), target)).then(
          () => true,
          () => false,
        );
        if (!exists) broken.push(`${file}: ${target}`);
      }
    }
    expect(links).toBeGreaterThan(10);
    expect(broken).toEqual([]);
  });

  it('names commands and options that exist', async () => {
    const main = await read('cli/main.ts');
    const commands = new Set(Array.from(main.matchAll(/\.command\(\s*'([a-z-]+)'/g), (m) => m[1]));
    const options = new Set(
      Array.from(main.matchAll(/(?:\.option\(|new Option\()\s*'(--[a-z-]+)/g), (m) => m[1]),
    );
    options.add('--help');
    const unknown: string[] = [];
    for (const file of await pages()) {
      for (const [line, command = '', rest = ''] of (await read(file)).matchAll(
        /\.\/polydev ([a-z][a-z-]*)?([^`\n#]*)/g,
      )) {
        if (command !== '' && !commands.has(command)) unknown.push(`${file}: ${line}`);
        for (const [option] of rest.matchAll(/--[a-z-]+/g)) {
          if (!options.has(option)) unknown.push(`${file}: ${line}`);
        }
      }
    }
    expect(unknown).toEqual([]);
  });

  it('names routes that exist', async () => {
    const openapi: unknown = JSON.parse(await read('controller/api/openapi.json'));
    const known = JSON.stringify(openapi).replaceAll(/\{[a-zA-Z]+\}/g, '{}');
    const unknown: string[] = [];
    for (const file of await pages()) {
      for (const [, route = ''] of (await read(file)).matchAll(/`(?:GET|POST|DELETE) (\/[^`?]*)`/g)) {
        const asInOpenApi = route.replaceAll(/:[a-zA-Z]+/g, '{}');
        if (!known.includes(`"${asInOpenApi}":`)) unknown.push(`${file}: ${route}`);
      }
    }
    expect(unknown).toEqual([]);
  });
});
