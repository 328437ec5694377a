import { describe, expect, it } from 'vitest';
import { redact, redactConsole } from './redact.ts';

describe('redact', () => {
  it.each([
    [
      'https://auth.openai.com/oauth/authorize?state=S3CRET&x=1',
      'https://auth.openai.com/oauth/authorize?[redacted]',
    ],
    [
      'at http://127.0.0.1:1455/success?id_token=S3CRET now',
      'at http://127.0.0.1:1455/success?[redacted] now',
    ],
    ['see https://a.example/page#access=S3CRET', 'see https://a.example/page?[redacted]'],
    ['Authorization: Bearer S3CRETS3CRET', 'Authorization: [redacted] [redacted]'],
    ['{"refresh_token":"S3CRET","x":1}', '{"refresh_token":"[redacted]","x":1}'],
    ['id_token=S3CRET rest', 'id_token=[redacted] rest'],
    ['Main process exited, code=killed, status=4/ILL', 'Main process exited, code=killed, status=4/ILL'],
    ['back at code=killedS3CRET', 'back at code=[redacted]'],
    ['token eyJhbGciOiJS3CRET.eyJzdWIiOiJS3CRET.S3CRET-x_y end', 'token [token] end'],
    ['key sk-S3CRETS3', 'key [token]'],
    [`opaque ${'S3CRET'.repeat(6)}`, 'opaque [redacted]'],
    ['callback code=S3CRET&state=S3CRET', 'callback code=[redacted]&state=[redacted]'],
  ])('%s', (line, expected) => {
    expect(redact(line)).toBe(expected);
    expect(redact(line)).not.toContain('S3CRET');
  });

  it.each([
    'ended with code 1 after 250 ms',
    'm_abcdefghijklmnopqrst: listening',
    'oauth callback returned error error_code="access_denied" has_error_description=true',
    'https://auth.openai.com/oauth/token',
    '/opt/polydev/clis/node_modules/.bin/codex: not found',
  ])('leaves %j alone', (line) => {
    expect(redact(line)).toBe(line);
  });

  it('bounds a line and drops colours', () => {
    expect(redact('word '.repeat(10_000)).length).toBeLessThan(2_100);
    expect(redact('\u001b[31mred\u001b[0m')).toBe('red');
  });
});

describe('redactConsole', () => {
  it.each([
    'systemd[1]: dev-disk-by\\x2did-virtio\\x2dprivate.device: Job dev-disk-by-id-virtio-private.device/start timed out.',
    'systemd[1]: systemd-journal-catalog-update-and-nothing-more.service: Main process exited, code=exited, status=203/EXEC',
    'polydev-witness: LoadState=not-found ActiveState=inactive 8dd1e8b39b6a89558dd1e8b39b6a89558dd1e8b39b6a8955',
    '\u001b[0;32m  OK  \u001b[0m] Reached target multi-user.target',
  ])('leaves %j alone', (line) => {
    expect(redactConsole(line)).toBe(line);
  });

  it('takes secrets out of every line', () => {
    const opaque = 'S3CRETaS3CRETbS3CRETcS3CRETdS3CRETe';
    const text = `a Authorization: Bearer S3CRETS3CRET\nb ${opaque}\nc eyJS3CRETS3CRET.S3CRET refresh_token=S3CRET\n`;
    expect(redactConsole(text)).not.toContain('S3CRET');
    expect(
      redactConsole(text)
        .split('\n')
        .map(([first]) => first),
    ).toEqual(['a', 'b', 'c', undefined]);
  });
});
