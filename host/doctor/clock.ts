/** The clock, as far as this computer alone can tell that it is off. */
import { existsSync, readFileSync } from 'node:fs';
import { openImageStore } from '../images/store.ts';
import { type Check, fail, ok, warn } from './check.ts';
import type { Examination } from './host.ts';

const DAY_MS = 86_400_000;
const YEAR_MS = 365 * DAY_MS;
/** Nobody runs an image of this age. */
const LONG_YEARS = 5;
/** The battery's clock, seconds since 1970. Many virtual machines and containers have none. */
const BATTERY = '/sys/class/rtc/rtc0/since_epoch';

/** A clock far off breaks every certificate: it cannot be before the image was made, nor years after. */
export async function clock({ imageCacheDir }: Examination): Promise<Check> {
  const now = new Date();
  const says = `it says ${now.toISOString()}`;
  const remedy = 'timedatectl set-ntp true';
  const made = (await openImageStore(imageCacheDir).current())?.verified;
  if (made !== undefined) {
    const age = now.getTime() - Date.parse(made);
    if (age < 0) return fail('clock', `${says}, and the image was verified at ${made}`, remedy);
    if (age > LONG_YEARS * YEAR_MS) {
      return warn(
        'clock',
        `${says}, ${Math.round(age / YEAR_MS)} years after the image was verified`,
        remedy,
      );
    }
  }
  const battery = existsSync(BATTERY) ? Number(readFileSync(BATTERY, 'utf8')) * 1000 : undefined;
  if (battery !== undefined && battery > 0 && Math.abs(battery - now.getTime()) > DAY_MS) {
    return warn('clock', `${says}; the battery's clock says ${new Date(battery).toISOString()}`, remedy);
  }
  return ok('clock', says);
}
