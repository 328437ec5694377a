import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../../testkit/fakes/api.ts';

const COMMITTED = new URL('./openapi.json', import.meta.url);

describe('the description of the API', () => {
  let api: TestApi;
  let made: string;
  let document: {
    openapi: string;
    paths: Record<
      string,
      Record<
        string,
        { security?: object[]; summary?: string; responses: Record<string, { description: string }> }
      >
    >;
    components: { schemas: object };
  };
  beforeAll(async () => {
    api = await createTestApi();
    const reply = await api.app.inject('/openapi.json');
    made = `${JSON.stringify(reply.json(), null, 2)}\n`;
    document = reply.json();
    // UPDATE_OPENAPI=1 vitest run controller/api/openapi.test.ts writes the committed copy.
    if (process.env.UPDATE_OPENAPI === '1') await writeFile(COMMITTED, made);
  });
  afterAll(() => api[Symbol.asyncDispose]());

  it('is the committed one', async () => {
    expect(document).toEqual(JSON.parse(await readFile(COMMITTED, 'utf8')));
  });

  it('describes every route that exists', () => {
    const documented = Object.entries(document.paths).flatMap(([path, item]) =>
      Object.keys(item).map((method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`),
    );
    const HIDDEN = ['GET /openapi.json', 'GET /*'];
    const routes = api.routes.filter((route) => !HIDDEN.includes(route) && !route.startsWith('HEAD '));
    expect(routes.length).toBeGreaterThan(30);
    expect(documented.toSorted()).toEqual(routes.toSorted());
  });

  it('is OpenAPI 3.1 in which every reference leads somewhere', () => {
    expect(document.openapi).toBe('3.1.0');
    const references = [...made.matchAll(/"\$ref": "#\/components\/schemas\/(\w+)"/g)].map(
      (match) => match[1],
    );
    expect(references.length).toBeGreaterThan(50);
    for (const name of new Set(references)) expect(Object.keys(document.components.schemas)).toContain(name);
  });

  it('has a summary and the refusals of every call with an identity', () => {
    for (const [path, item] of Object.entries(document.paths)) {
      for (const [method, operation] of Object.entries(item)) {
        expect(operation.summary, `${method} ${path}`).toBeTruthy();
        if (operation.security?.length === 0) continue;
        expect(Object.keys(operation.responses), `${method} ${path}`).toEqual(
          expect.arrayContaining(['401', '429', '500']),
        );
      }
    }
  });
});
