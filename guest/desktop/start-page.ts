/** The page's background as Chromium paints it: red, green, blue. No other part of the desktop has this colour. */
export const PAGE_COLOUR = [244, 241, 234] as const;

/** What the person sees until the provider's page opens. Needs nothing but itself. */
export const START_PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="color-scheme" content="only light">
<title>Preparing your sign-in</title>
<style>
  html { background: rgb(${PAGE_COLOUR.join(' ')}); color: #2b2a27; height: 100%; }
  body { margin: 0; height: 100%; display: grid; place-content: start center; padding-top: 22vh; text-align: center;
    font: 17px/1.6 "Liberation Sans", system-ui, sans-serif; }
  h1 { font-size: 28px; font-weight: 600; margin: 0 0 8px; }
  p { margin: 0; color: #6b675f; }
</style>
<h1>Preparing your sign-in…</h1>
<p>The sign-in page opens here by itself in a moment.</p>
</html>
`;

/** True when every pixel of a raw buffer (blue, green, red, unused) has the page's colour, give or take rounding. */
export function isPageColour(pixels: Buffer): boolean {
  const [red, green, blue] = PAGE_COLOUR;
  for (let at = 0; at + 3 < pixels.length; at += 4) {
    const near =
      Math.abs((pixels[at] ?? 0) - blue) <= 2 &&
      Math.abs((pixels[at + 1] ?? 0) - green) <= 2 &&
      Math.abs((pixels[at + 2] ?? 0) - red) <= 2;
    if (!near) return false;
  }
  return pixels.length > 0;
}
