import type { Fault } from '../fault.ts';
import { changeWords } from '../vm.ts';

export const rootDeviceMissing: Fault = {
  name: 'root-device-missing',
  driver: 'qemu',
  expect: 'root_device_missing',
  spec: { kind: 'cli', realm: 'test' },
  ownMounts: true,
  // The private disk has another serial number than the guest looks for.
  before: (place) => changeWords(place, 's/serial=private/serial=stray/'),
};
