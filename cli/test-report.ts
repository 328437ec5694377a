/** What vitest's JSON report says of a suite, added to the tally of a whole run. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { z } from 'zod';
import type { Output } from './output.ts';

export interface Tally {
  passed: number;
  failed: number;
  skipped: number;
  /** Said once more at the end, where a long log is read first. */
  failures: string[];
}

/** Lines kept of each failure for the end. */
const FAILURE_LINES = 30;

export const VitestReport = z.object({
  numPassedTests: z.number(),
  numFailedTests: z.number(),
  numPendingTests: z.number(),
  numTodoTests: z.number(),
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      assertionResults: z.array(
        z.object({
          status: z.string(),
          fullName: z.string(),
          title: z.string(),
          ancestorTitles: z.array(z.string()),
          failureMessages: z.array(z.string()).nullish(),
        }),
      ),
    }),
  ),
});

export const firstLines = (text: string): string =>
  stripVTControlCharacters(text).split('\n').slice(0, FAILURE_LINES).join('\n');

/** Adds the report in `file`; a suite without a report, or without a test that ran, is a failure. */
export async function takeReport(
  from: { suite: string; file: string; checkout: string },
  tally: Tally,
  output: Output,
): Promise<void> {
  const { suite, file: reportFile, checkout } = from;
  const text = await readFile(reportFile, 'utf8').catch(() => undefined);
  if (text === undefined || text === '') {
    tally.failed += 1;
    tally.failures.push(`${suite}: the test runner ended without a report`);
    return;
  }
  const results = VitestReport.parse(JSON.parse(text));
  tally.passed += results.numPassedTests;
  tally.failed += results.numFailedTests;
  tally.skipped += results.numPendingTests + results.numTodoTests;
  // A file that could not even be loaded has no test that failed.
  const broken = results.testResults.filter(
    (f) => f.status === 'failed' && !f.assertionResults.some((a) => a.status === 'failed'),
  );
  for (const file of broken) {
    tally.failures.push(`${path.relative(checkout, file.name)} could not be loaded`);
  }
  for (const one of results.testResults.flatMap((f) => f.assertionResults)) {
    if (one.status !== 'failed') continue;
    tally.failures.push(`${suite}: ${one.fullName}\n${firstLines(one.failureMessages?.join('\n') ?? '')}`);
  }
  tally.failed += broken.length;
  const skipped = results.testResults.flatMap((f) =>
    f.assertionResults.filter((a) => a.status === 'pending' || a.status === 'skipped'),
  );
  for (const one of skipped) output.say(`skipped: ${one.fullName}`);
  if (results.numPassedTests + results.numFailedTests === 0) {
    tally.failed += 1;
    tally.failures.push(`${suite}: it ran no test`);
  }
}
