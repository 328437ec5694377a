/** The rules on the recorded cases of all faults, and the completeness of the catalogue. Needs nothing but files. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { Case } from '../../host/diagnosis/case.ts';
import { diagnose } from '../../host/diagnosis/diagnose.ts';
import { RULES } from '../../host/diagnosis/rules/index.ts';
import { DIAGNOSES } from '../../protocol/diagnoses.ts';
import { FAULTS } from './index.ts';

const caseOf = (name: string): Case =>
  Case.parse(JSON.parse(readFileSync(path.join(import.meta.dirname, name, 'case.json'), 'utf8')));

const healthy = (): Case => ({ ...caseOf('stale-browser-profile-lock') });

describe('rules', () => {
  for (const fault of FAULTS) {
    it(`name the recorded case of ${fault.name}`, () => {
      const diagnosis = diagnose(caseOf(fault.name));
      expect(diagnosis?.name ?? 'none').toBe(fault.expect);
    });
  }

  it('say nothing of a machine that works', () => {
    expect(diagnose(healthy())).toBeNull();
  });

  it('say nothing of a machine that has been ready for days', () => {
    const found = healthy();
    const later = new Date(Date.parse(found.stamps.at(-1)?.at ?? '') + 9 * 86_400_000).toISOString();
    expect(found.stamps.map(({ checkpoint }) => checkpoint)).toContain('hypervisor');
    expect(diagnose({ ...found, facts: found.facts && { ...found.facts, at: later } })).toBeNull();
  });

  it('take only what is recent on the console of a guest that has run for days for its lack of memory', () => {
    const found = caseOf('vm-no-network-device');
    const start = Date.parse(found.stamps[0]?.at ?? '');
    const days = 9 * 86_400;
    const at = new Date(start + days * 1000).toISOString();
    const killed = (seconds: number): Case => ({
      ...found,
      facts: found.facts && { ...found.facts, at, network: null },
      texts: { 'console.log': `[ ${seconds}.512345] Out of memory: Killed process 812 (node)\n` },
    });
    expect(diagnose(killed(100))).toBeNull();
    expect(diagnose(killed(days - 30))?.name).toBe('guest_out_of_memory');
  });

  it('cite the journal where the console has nothing', () => {
    const found = caseOf('vm-agent-runtime-missing');
    const { 'console.log': said = '', ...texts } = found.texts;
    const proofOf = (one: Case) => diagnose(one)?.lines.map(({ source }) => source);
    expect(proofOf(found)).toContain('console.log');
    const silent = { ...found, texts: { ...texts, 'journal.log': said } };
    expect(diagnose(silent)?.name).toBe('agent_runtime_unusable');
    expect(proofOf(silent)).toContain('journal.log');
    expect(diagnose({ ...found, texts })?.name).not.toBe('agent_runtime_unusable');
  });

  it('add to any name the deadline at which a boot was given up', () => {
    const found = { ...caseOf('dns-dead') };
    const line =
      'deadline of desktop: 15 s from the start (4 × 2 s, the 95th percentile of the last 9 boots)';
    found.error = {
      code: 'machine_boot_stalled',
      message: 'not in time',
      remedy: '',
      fault: 'system',
      lines: [line],
    };
    const diagnosis = diagnose(found);
    expect(diagnosis?.name).toBe('dns_dead');
    expect(diagnosis?.lines.map(({ text }) => text)).toContain(line);
  });

  it('say "unknown" and the last checkpoint of a failure that they do not know', () => {
    const found = healthy();
    found.error = {
      code: 'machine_boot_stalled',
      message: 'it was not ready after 60 s',
      remedy: '',
      fault: 'system',
    };
    found.stamps = found.stamps.slice(0, 2);
    const diagnosis = diagnose(found);
    expect(diagnosis).toMatchObject({ name: 'unknown', checkpoint: 'init' });
    expect(diagnosis?.lines[0]?.text).toBe('the last checkpoint reached was init');
  });
});

describe('the catalogue of diagnoses', () => {
  it('has one rule for every name but "unknown", and a fault that shows it', () => {
    const names = Object.keys(DIAGNOSES).filter((name) => name !== 'unknown');
    expect(RULES.map(({ name }) => name).toSorted()).toEqual(names.toSorted());
    expect(names.filter((name) => !FAULTS.some(({ expect: wanted }) => wanted === name))).toEqual([]);
  });

  it('has a section for every name in docs/troubleshooting-machines.md, and no other', () => {
    const file = path.resolve(import.meta.dirname, '../../docs/troubleshooting-machines.md');
    expect(existsSync(file)).toBe(true);
    const sections = [...readFileSync(file, 'utf8').matchAll(/^## `?([a-z_]+)`?$/gm)].map(([, name]) => name);
    expect(sections.toSorted()).toEqual(Object.keys(DIAGNOSES).toSorted());
  });
});
