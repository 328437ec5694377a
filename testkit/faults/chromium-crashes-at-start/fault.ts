import type { Fault } from '../fault.ts';

export const chromiumCrashesAtStart: Fault = {
  name: 'chromium-crashes-at-start',
  expect: 'chromium_crashed',
  before: async ({ disk }) => disk.write('/usr/lib/chromium/chromium', '#!/bin/sh\nkill -SEGV $$\n'),
};
