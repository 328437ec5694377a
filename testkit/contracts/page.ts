/** A page in the browser of a machine that shows by its title that it is alive. */
import { type Guest, run } from './host-process.ts';

/** Counts in its title. */
const PAGE = `<!doctype html><title>tick 0</title><script>
  let n = 0; setInterval(() => { n += 1; document.title = 'tick ' + n; }, 100);</script>`;
const BROWSER = [
  'env',
  'DBUS_SESSION_BUS_ADDRESS=disabled:',
  'CHROME_WRAPPER=/usr/bin/chromium',
  '/usr/lib/chromium/chromium',
  '--user-data-dir=/home/person/.config/chromium',
  '--no-first-run',
  '--password-store=basic',
  'file:///home/person/page.html',
];

/** Hands it to the browser that runs. */
export async function openTickingPage(guest: Guest): Promise<void> {
  await run(guest, ['sh', '-c', `cat > page.html <<'END'\n${PAGE}\nEND`]);
  await run(guest, BROWSER);
}

/** How far it has counted; -1: it is not there. */
export async function ticksOf(guest: Guest): Promise<number> {
  const { text } = await run(guest, ['xdotool', 'search', '--name', '^tick ', 'getwindowname']);
  return Number(/tick (\d+)/.exec(text)?.[1] ?? -1);
}
