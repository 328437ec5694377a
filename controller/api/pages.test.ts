import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../../testkit/fakes/api.ts';

let api: TestApi;
beforeEach(async () => {
  api = await createTestApi();
});
/** A file beside the served folder, whose name begins like it. */
const outside = () => `${api.webDist}.outside`;
afterEach(async () => {
  await rm(outside(), { force: true });
  await api[Symbol.asyncDispose]();
});

async function build() {
  await mkdir(path.join(api.webDist, 'assets'));
  await writeFile(path.join(api.webDist, 'index.html'), '<!doctype html><title>Polydev</title>');
  await writeFile(path.join(api.webDist, 'assets', 'main-1a2b.js'), 'let x = 1;');
  await writeFile(path.join(api.webDist, '.secret'), 'hidden');
  await writeFile(outside(), 'outside');
}

describe('the dashboard', () => {
  it('is served to strangers, hashed files for ever, the page always fresh', async () => {
    await build();
    const page = await api.app.inject('/');
    expect(page.statusCode).toBe(200);
    expect(page.headers['content-type']).toContain('text/html');
    expect(page.headers['cache-control']).toBe('no-cache');
    const script = await api.app.inject('/assets/main-1a2b.js');
    expect(script.body).toBe('let x = 1;');
    expect(script.headers['cache-control']).toBe('public, max-age=31536000, immutable');
  });

  it('answers places in the page with the page', async () => {
    await build();
    for (const url of ['/sessions/s_x/desktop', '/machines', '/credentials?x=1']) {
      const reply = await api.app.inject(url);
      expect(reply.statusCode, url).toBe(200);
      expect(reply.body, url).toContain('<title>Polydev</title>');
      expect(reply.headers['cache-control']).toBe('no-cache');
    }
  });

  it('never answers an unknown call or a missing script with the page', async () => {
    await build();
    for (const [method, url] of [
      ['GET', '/api/nothing'],
      ['GET', '/assets/missing.js'],
      ['POST', '/machines'],
      ['DELETE', '/'],
    ] as const) {
      const reply = await api.app.inject({ method, url });
      expect(reply.statusCode, url).toBe(404);
      expect(reply.json().error).toMatchObject({ code: 'not_found', requestId: expect.any(String) });
    }
  });

  it.each([
    '/.secret',
    '/../OUTSIDE',
    '/..%2fOUTSIDE',
    '/%2e%2e/OUTSIDE',
    '/assets/..%2f.secret',
    '/assets/..%2f..%2fOUTSIDE',
  ])('does not serve %s', async (url) => {
    await build();
    const reply = await api.app.inject(url.replace('OUTSIDE', path.basename(outside())));
    expect(reply.statusCode === 200 ? reply.body : '<title>').toContain('<title>');
    expect(reply.body).not.toMatch(/hidden|outside$/);
  });

  it('says when it is not built', async () => {
    const reply = await api.app.inject('/machines');
    expect(reply.statusCode).toBe(404);
    expect(reply.json().error.message).toContain('not built');
  });

  it('carries the security headers on pages, calls and errors', async () => {
    await build();
    for (const url of ['/', '/api/me', '/api/nothing', '/health', '/%zz']) {
      const { headers } = await api.app.inject(url);
      expect(headers, url).toMatchObject({
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'content-security-policy': expect.stringContaining("frame-ancestors 'self'"),
      });
      expect(headers['content-security-policy']).not.toMatch(/script-src[^;]*unsafe/);
    }
    expect((await api.app.inject('/api/me')).headers['cache-control']).toBe('no-store');
  });
});
