/** Who gives the machine's interface its address, as its agent sees it: exactly one should, and not a server that is not there. */
import type { Case } from '../case.ts';
import { checked, linesOf, type Rule } from '../rule.ts';

const has = ({ guestNetwork }: Case): string => {
  const addresses = guestNetwork?.addresses ?? [];
  return addresses.length === 0 ? 'no address' : addresses.join(', ');
};

export const addressTwoOwners: Rule = {
  name: 'address_two_owners',
  prove(found) {
    const { guestNetwork } = found;
    if (guestNetwork == null || guestNetwork.file === null || guestNetwork.others.length === 0)
      return undefined;
    const wanted = found.facts?.network?.address ?? 'its own';
    return [
      checked(`networkd configures the machine's interface from ${guestNetwork.file}`),
      ...guestNetwork.others.map((other) => checked(`${other} gives it addresses, too`)),
      checked(`it has ${has(found)}; given to it was ${wanted}`),
    ];
  },
};

export const dhcpSilent: Rule = {
  name: 'dhcp_silent',
  prove(found) {
    const { guestNetwork } = found;
    if (guestNetwork == null || !guestNetwork.dhcp) return undefined;
    const wanted = found.facts?.network?.address;
    if (wanted == null || guestNetwork.addresses.includes(wanted)) return undefined;
    return [
      checked(
        `networkd configures the machine's interface from ${guestNetwork.file}, which asks a DHCP server`,
      ),
      checked(`it has ${has(found)}; given to it was ${wanted}`),
      ...linesOf(found, 'journal.log', /systemd-networkd\[\d+\]: eth0: /, 3),
    ];
  },
};
