/** The matrix of `./polydev test machines`: each test of the drivers' contract, for each driver. */
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { KVM_DRIVERS, kvmSuite } from './test-kvm.ts';
import { VitestReport } from './test-report.ts';

interface Column {
  title: string;
  /** Test to what became of it. */
  results: Map<string, string>;
  /** What its skipped suites lack, by suite. */
  missing: Map<string, string>;
}

const SUITE = /^(\w+) driver: (.+) \(needs (.+)\)$/;
const MARKS: Readonly<Record<string, string>> = { passed: 'pass', failed: 'FAIL' };

/** The drivers' columns of a report; none when there is no report. `where` is added to their titles. */
async function columnsOf(file: string, where: string): Promise<Column[]> {
  const text = await readFile(file, 'utf8').catch(() => '');
  if (text === '') return [];
  const columns = new Map<string, Column>();
  const tests = VitestReport.parse(JSON.parse(text)).testResults.flatMap((one) => one.assertionResults);
  for (const { ancestorTitles, title, status } of tests) {
    const [, driver, suite, needs] = SUITE.exec(ancestorTitles[0] ?? '') ?? [];
    if (driver === undefined || suite === undefined || needs === undefined) continue;
    const name = `${driver}${where}`;
    const column: Column = columns.get(name) ?? { title: name, results: new Map(), missing: new Map() };
    columns.set(name, column);
    if (needs !== 'nothing more') column.missing.set(suite, needs);
    column.results.set(title, MARKS[status] ?? 'skip');
  }
  return [...columns.values()];
}

/** As a text table, with what the skipped ones lack below; those of the last run in the bench beside those of this computer. */
export async function machineTable(checkout: string): Promise<string> {
  const artifacts = path.join(checkout, '.artifacts');
  const inBench = KVM_DRIVERS.map((driver) => ({
    driver,
    file: path.join(artifacts, `${kvmSuite(driver)}.json`),
  }));
  const columns = [
    ...(await columnsOf(path.join(artifacts, 'machines.json'), '')),
    ...(await Promise.all(inBench.map(({ file }) => columnsOf(file, ' (KVM bench)')))).flat(),
  ];
  const tests = [...new Set(columns.flatMap(({ results }) => [...results.keys()]))];
  const widest = Math.max(4, ...tests.map((name) => name.length));
  const row = (name: string, cells: readonly string[]): string =>
    [name.padEnd(widest), ...cells.map((cell, index) => cell.padEnd(columns[index]?.title.length ?? 0))]
      .join('  ')
      .trimEnd();
  const lines = [
    row(
      'test',
      columns.map(({ title }) => title),
    ),
    ...tests.map((name) =>
      row(
        name,
        columns.map(({ results }) => results.get(name) ?? ''),
      ),
    ),
    ...columns.flatMap(({ title, missing }) =>
      [...missing].map(([suite, needs]) => `${title}, ${suite}: needs ${needs}`),
    ),
  ];
  for (const { driver, file } of inBench) {
    const when = (await stat(file).catch(() => undefined))?.mtime.toISOString();
    if (when !== undefined) lines.push(`KVM bench, ${driver}: last run of ./polydev test kvm, ended ${when}`);
  }
  return lines.join('\n');
}
