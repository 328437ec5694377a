import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** Times the slowdown of the machine's driver. */
const PROGRAM_TIMEOUT_MS = 10_000;

/** Runs a program as the agent itself; why it failed, or undefined. `slowdown`: of the machine's driver. */
export async function runAsAgent(
  argv: readonly [string, ...string[]],
  input: Buffer | string,
  slowdown = 1,
): Promise<string | undefined> {
  const [file, ...args] = argv;
  const child = spawn(file, args, {
    stdio: ['pipe', 'ignore', 'pipe'],
    timeout: PROGRAM_TIMEOUT_MS * slowdown,
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-500);
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  try {
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    return code === 0 ? undefined : said.trim() || `${file} ended with ${code ?? signal}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
