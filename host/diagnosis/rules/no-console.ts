/** Asked of the running hypervisor: the guest's kernel was told of no console, so nothing it says is kept. */
import { checked, type Rule } from '../rule.ts';

export const noConsole: Rule = {
  name: 'no_console',
  prove(found) {
    const said = found.facts?.guest?.hypervisor?.kernelArguments;
    if (said === undefined || said === null || /(^| )console=/.test(said)) return undefined;
    return [checked(`the kernel command line names no console: ${said.slice(0, 300)}`)];
  },
};
