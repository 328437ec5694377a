/**
 * A light guest: the genuine agent on the genuine image, but the programs it starts are a few lines each, so that hundreds
 * of sessions fit into a test. The desktop's X server paints one colour; the CLI takes any callback and writes a credential.
 */
import { PAGE_COLOUR } from '../../guest/desktop/start-page.ts';
import { codexFiles } from '../fakes/codex.ts';

/** What a person who has signed in pastes; the fake CLI takes any such address. */
export const CALLBACK = 'http://localhost:1455/auth/callback?code=of-the-test&state=of-the-test';

/** Speaks enough RFB 3.8 for the agent to see a painted page. */
const XVNC = `#!/usr/local/bin/node
const at = process.argv.indexOf('-rfbunixpath');
const pixel = Buffer.from([${PAGE_COLOUR[2]}, ${PAGE_COLOUR[1]}, ${PAGE_COLOUR[0]}, 0]);
require('node:net').createServer((viewer) => {
  viewer.on('error', () => undefined);
  viewer.write('RFB 003.008\\n');
  let read = Buffer.alloc(0);
  const steps = [
    [12, () => viewer.write(Buffer.from([1, 1]))],
    [1, () => viewer.write(Buffer.alloc(4))],
    [1, () => viewer.write(Buffer.concat([Buffer.alloc(20), Buffer.from([0, 0, 0, 1]), Buffer.from('x')]))],
    [20, () => undefined],
    [8, () => undefined],
  ];
  viewer.on('data', (bytes) => {
    read = Buffer.concat([read, bytes]);
    for (;;) {
      const [size, act] = steps[0] ?? [10, (request) => {
        const [width, height] = [request.readUInt16BE(6), request.readUInt16BE(8)];
        const head = Buffer.alloc(16);
        head.writeUInt16BE(1, 2);
        request.copy(head, 4, 2, 10);
        viewer.write(Buffer.concat([head, Buffer.alloc(width * height * 4, pixel)]));
      }];
      if (read.length < size) return;
      act(read.subarray(0, size));
      steps.shift();
      read = read.subarray(size);
    }
  });
}).listen(process.argv[at + 1], () => require('node:fs').writeSync(3, '0\\n'));
`;

/** Stays as the browser; ends at once when it only hands a page over to the one that runs. */
const CHROMIUM = `#!/bin/sh
for last in "$@"; do :; done
case "$last" in file:*) exec sleep 100000 ;; esac
`;

const auth = codexFiles('canary-of-the-crash-tests')[0]?.contentBase64 ?? '';
const LOGIN_URL =
  'https://auth.openai.com/oauth/authorize?redirect_uri=http%3A%2F%2Flocalhost%3A1455%2Fauth%2Fcallback&state=x&code_challenge=x';

const CODEX = `#!/bin/sh
if [ "$2" = status ]; then
  [ -s "$HOME/.codex/auth.json" ] && echo 'Logged in using ChatGPT' && exit 0
  echo 'Not logged in'; exit 1
fi
exec /usr/local/bin/node -e "
const { mkdirSync, writeFileSync } = require('node:fs');
require('node:http').createServer((request, response) => {
  mkdirSync(process.env.HOME + '/.codex', { recursive: true });
  writeFileSync(process.env.HOME + '/.codex/auth.json', Buffer.from('${auth}', 'base64'), { mode: 0o600 });
  response.end('done', () => process.exit(0));
}).listen(1455, '127.0.0.1', () =>
  require('node:child_process').spawn(process.env.BROWSER, ['${LOGIN_URL}'], { stdio: 'ignore' }));
"
`;

/** A file of the image is replaced, never copied up: Chromium alone is a quarter of a gigabyte. */
const put = (path: string, text: string): string =>
  `cat > ${path}.new <<'END-OF-FILE'\n${text}END-OF-FILE\nchmod 755 ${path}.new\nmv -f ${path}.new ${path}\n`;

/** The guest's first program. */
export const LIGHT_GUEST: readonly string[] = [
  '/usr/bin/tini',
  '--',
  '/bin/sh',
  '-c',
  `${put('/usr/local/bin/Xvnc', XVNC)}${put('/usr/lib/chromium/chromium', CHROMIUM)}${put(
    '/usr/local/bin/openbox',
    '#!/bin/sh\nexec sleep 100000\n',
  )}${put('/usr/local/bin/codex', CODEX)}exec /usr/local/bin/node /opt/polydev/agent/main.mjs`,
];
