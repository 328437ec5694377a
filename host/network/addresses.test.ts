import { describe, expect, it } from 'vitest';
import { newMachineId } from '../../protocol/ids.ts';
import {
  chooseSubnet,
  formatAddress,
  machineNamespace,
  macOf,
  overlap,
  parseAddress,
  parseBlock,
  planSubnet,
  portName,
  SUBNETS,
  uplinkName,
} from './addresses.ts';

describe('address plan', () => {
  it('reads and writes addresses over the whole range', () => {
    for (const text of ['0.0.0.0', '10.213.0.1', '192.168.255.254', '255.255.255.255']) {
      expect(formatAddress(parseAddress(text))).toBe(text);
    }
    expect(() => parseAddress('10.0.0.256')).toThrow();
  });

  it('cuts a subnet so that nothing is given twice', () => {
    for (const cidr of [...SUBNETS, '10.1.2.64/26']) {
      const plan = planSubnet(cidr);
      const block = parseBlock(cidr);
      const fixed = [plan.gateway, plan.uplinkHost, plan.uplinkRouter, plan.idpRouter, plan.idp].map(
        parseAddress,
      );
      expect(new Set(fixed).size).toBe(5);
      for (const address of fixed) {
        expect(address > block.first && address < block.last).toBe(true);
        expect(address < plan.firstMachine || address > plan.lastMachine).toBe(true);
      }
      expect(plan.lastMachine).toBeGreaterThan(plan.firstMachine);
    }
    expect(planSubnet('10.213.0.0/16')).toMatchObject({
      uplinkHost: '10.213.255.253',
      uplinkRouter: '10.213.255.254',
    });
    expect(() => planSubnet('10.0.0.0/30')).toThrow(/prefix/);
  });

  it('sees overlaps from both sides', () => {
    expect(overlap(parseBlock('10.0.0.0/8'), parseBlock('10.213.0.0/16'))).toBe(true);
    expect(overlap(parseBlock('10.213.4.1'), parseBlock('10.213.0.0/16'))).toBe(true);
    expect(overlap(parseBlock('10.212.0.0/16'), parseBlock('10.213.0.0/16'))).toBe(false);
  });

  it('takes the wished subnet, another one, or none', () => {
    expect(chooseSubnet('10.213.0.0/16', ['default', '192.0.2.0/24'])).not.toHaveProperty('notice');
    expect(chooseSubnet('10.213.0.0/16', ['10.0.0.0/8']).plan.cidr).toBe('172.29.0.0/16');
    expect(() => chooseSubnet('10.213.0.0/16', ['0.0.0.0/1', '128.0.0.0/1'])).toThrow(/overlaps/);
  });

  it('keeps names within what Linux takes', () => {
    const id = newMachineId();
    expect(portName(id).length).toBeLessThanOrEqual(15);
    expect(uplinkName('abcdef').length).toBeLessThanOrEqual(15);
    expect(machineNamespace('abcdef', id)).toBe(`pd-abcdef-${id.slice(2, 12)}`);
    expect(macOf('10.213.0.9')).toBe('02:70:0a:d5:00:09');
  });
});
