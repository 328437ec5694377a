import { describe, expect, it } from 'vitest';
import { css, MIN_DISTANCE, PAGE, TARGET } from './colours.ts';
import { consentPage, deviceCodePage, donePage, errorPage, signInPage } from './pages.ts';

const named: [string, number][] = [...Object.entries(PAGE), ...Object.entries(TARGET)];
const channels = (colour: number) => [colour >> 16, (colour >> 8) & 0xff, colour & 0xff];

describe('the colours', () => {
  it('are apart from each other, and from the white and grey of any page', () => {
    const others: [string, number][] = [...named, ['white', 0xffffff], ['page', 0xeef1f4]];
    for (const [name, colour] of named) {
      for (const [other, against] of others) {
        if (name === other) continue;
        const far = Math.max(...channels(colour).map((c, i) => Math.abs(c - (channels(against)[i] ?? 0))));
        expect(far, `${name} and ${other}`).toBeGreaterThanOrEqual(MIN_DISTANCE);
      }
    }
  });

  it('tell each page by its band', () => {
    const base = { action: '/x', visit: 'v' };
    const pages = {
      'sign-in': signInPage(base),
      consent: consentPage({ ...base, email: 'e@x', app: 'App', asks: [] }),
      'device-code': deviceCodePage({ action: '/x' }),
      done: donePage('Done.'),
      error: errorPage('No.'),
    };
    expect(Object.keys(pages).sort()).toEqual(Object.keys(PAGE).sort());
    for (const [name, page] of Object.entries(pages)) {
      const bands = Object.entries(PAGE).filter(([, colour]) =>
        page.includes(`.band{background:${css(colour)}}`),
      );
      expect(bands.map(([band]) => band)).toEqual([name]);
    }
  });
});
