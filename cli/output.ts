/** How commands speak: words for people on stderr, results on stdout, and one progress line on a terminal. */
import { PolydevError } from '../protocol/errors.ts';

export interface Output {
  /** A line for the person. */
  say(text: string): void;
  /** Shows how far something is; on a terminal it replaces the last progress line. */
  progress(step: ProgressStep): void;
  /** The result: the only thing written to stdout. */
  result(text: string): void;
}

export interface ProgressStep {
  readonly stage: string;
  readonly index: number;
  readonly count: number;
  readonly message: string;
  /** 0 to 1, when known. */
  readonly fraction?: number | undefined;
  readonly bytes?: number | undefined;
}

const BAR = 24;

export function createOutput(options: { quiet?: boolean } = {}): Output {
  const terminal = process.stderr.isTTY === true;
  let lineOpen = false;
  let lastStage = '';
  let lastPrinted = 0;

  const closeLine = () => {
    if (lineOpen) process.stderr.write('\n');
    lineOpen = false;
  };
  return {
    say(text) {
      if (options.quiet) return;
      closeLine();
      process.stderr.write(`${text}\n`);
    },
    progress(step) {
      if (options.quiet) return;
      const size = step.bytes === undefined ? '' : `  ${formatBytes(step.bytes)}`;
      const head = `[${step.index}/${step.count}] ${step.stage}`;
      if (terminal) {
        const filled = step.fraction === undefined ? 0 : Math.round(Math.min(1, step.fraction) * BAR);
        const bar = step.fraction === undefined ? '' : ` ${'█'.repeat(filled)}${'░'.repeat(BAR - filled)}`;
        if (lastStage !== step.stage) closeLine();
        const text = `${head}${bar}  ${step.message}${size}`.slice(0, (process.stderr.columns ?? 100) - 1);
        process.stderr.write(`\r\x1b[2K${text}`);
        lineOpen = true;
      } else if (lastStage !== step.stage || Date.now() - lastPrinted > 10_000) {
        const percent = step.fraction === undefined ? '' : ` ${Math.round(step.fraction * 100)} %`;
        process.stderr.write(`${head}${percent}  ${step.message}${size}\n`);
        lastPrinted = Date.now();
      }
      lastStage = step.stage;
    },
    result(text) {
      closeLine();
      process.stdout.write(`${text}\n`);
    },
  };
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** An error as a person reads it: its name, what happened, the lines that prove it, what to do. */
export function describeError(thrown: unknown): string {
  const report = PolydevError.from(thrown).toReport();
  const lines = (report.lines ?? []).map((line) => `  | ${line}`);
  return [`${report.code}: ${report.message}`, ...lines, `What to do: ${report.remedy}`].join('\n');
}

/** Columns as wide as their widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((h, i) => Math.max(h.length, ...rows.map((r) => r[i]?.length ?? 0)));
  return [head, ...rows]
    .map((r) =>
      r
        .map((c, i) => c.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
