/**
 * The HTML pages of the test identity provider: one calm card, usable with mouse, keyboard and screen reader, and
 * readable for a robot that knows only `colours.ts`. Nothing changes on hover, so a pointer passing by changes no pixel.
 */
import { css, PAGE, type PageName, TARGET } from './colours.ts';

const STYLE = `
*{box-sizing:border-box}
body{margin:0;background:#eef1f4;color:#1f2933;font:18px/1.5 "DejaVu Sans","Liberation Sans",Arial,sans-serif}
.band{height:28px}
main{max-width:480px;margin:32px auto;padding:32px 36px 36px;background:#fff;border:1px solid #cfd7df;border-radius:10px}
h1{margin:0 0 4px;font-size:24px;line-height:1.3}
p{margin:0 0 16px}
.who{color:#52606d;font-size:16px;margin-bottom:20px}
label{display:block;margin:0 0 6px;font-weight:bold;font-size:16px}
input[type=email],input[type=password],input[type=text]{display:block;width:100%;height:52px;margin:0 0 18px;padding:0 14px;
 border:2px solid #7b8794;border-radius:0;font:inherit;color:inherit;outline:0}
input:focus{border-color:#1f2933}
#email{background:${css(TARGET.emailField)}}#email:focus{background:${css(TARGET.emailFieldFocused)}}
#password{background:${css(TARGET.passwordField)}}#password:focus{background:${css(TARGET.passwordFieldFocused)}}
#code{background:${css(TARGET.codeField)}}#code:focus{background:${css(TARGET.codeFieldFocused)}}
button{display:block;width:100%;height:56px;margin:8px 0 0;border:0;border-radius:0;font:inherit;font-weight:bold;color:#fff;cursor:pointer}
button:focus-visible{outline:3px solid #1f2933;outline-offset:3px}
.sign-in{background:${css(TARGET.signInButton)}}
.continue{background:${css(TARGET.continueButton)}}
.allow{background:${css(TARGET.allowButton)}}
.deny{background:${css(TARGET.denyButton)};color:#1f2933;margin-top:16px}
.banner{margin:0 0 18px;padding:14px 16px;background:${css(TARGET.errorBanner)};border-left:6px solid #b13a4b}
ul{margin:0 0 20px;padding-left:22px}
footer{max-width:480px;margin:0 auto;text-align:center;color:#616e7c;font-size:14px}
`;

/** Text made safe inside HTML, attribute values included. */
export function escapeHtml(text: string): string {
  const named: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return text.replace(/[&<>"']/g, (character) => named[character] ?? character);
}

function page(name: PageName, heading: string, body: string): string {
  return `<!doctype html>
<html lang="en" translate="no"><head><meta charset="utf-8"><title>${escapeHtml(heading)} - Test identity provider</title>
<meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,"><style>${STYLE}.band{background:${css(PAGE[name])}}</style></head>
<body><div class="band"></div>
<main><h1>${escapeHtml(heading)}</h1><p class="who">Test identity provider</p>
${body}</main>
<footer>For tests only. No real account is used here.</footer></body></html>
`;
}

const hidden = (name: string, value: string) =>
  `<input type="hidden" name="${name}" value="${escapeHtml(value)}">`;
const banner = (problem?: string) =>
  problem ? `<p class="banner" role="alert">${escapeHtml(problem)}</p>` : '';

/** E-mail and password. `problem` is shown in a banner; `email` is filled in again after a wrong password, which then
 * has the keyboard. */
export function signInPage(fields: {
  action: string;
  visit: string;
  email?: string;
  problem?: string;
}): string {
  const email = escapeHtml(fields.email ?? '');
  return page(
    'sign-in',
    'Sign in',
    `${banner(fields.problem)}<form method="post" action="${fields.action}" autocomplete="off">${hidden('visit', fields.visit)}
<label for="email">E-mail address</label>
<input id="email" name="email" type="email" value="${email}" required${email ? '' : ' autofocus'} autocomplete="off" spellcheck="false">
<label for="password">Password</label>
<input id="password" name="password" type="password" required${email ? ' autofocus' : ''} autocomplete="off">
<button class="sign-in">Sign in</button></form>`,
  );
}

/** Allow or Deny, naming the application and what it asks for. */
export function consentPage(fields: {
  action: string;
  visit: string;
  email: string;
  app: string;
  asks: string[];
}): string {
  return page(
    'consent',
    `Allow ${fields.app}?`,
    `<p>Signed in as <b>${escapeHtml(fields.email)}</b>. ${escapeHtml(fields.app)} asks to:</p>
<ul>${fields.asks.map((ask) => `<li>${escapeHtml(ask)}</li>`).join('')}</ul>
<form method="post" action="${fields.action}">${hidden('visit', fields.visit)}
<button class="allow" name="decision" value="allow">Allow</button>
<button class="deny" name="decision" value="deny">Deny</button></form>`,
  );
}

/** Asks for the code that a device shows. */
export function deviceCodePage(fields: { action: string; problem?: string }): string {
  return page(
    'device-code',
    'Connect a device',
    `${banner(fields.problem)}<form method="post" action="${fields.action}" autocomplete="off">
<label for="code">Code shown by the device</label>
<input id="code" name="user_code" type="text" required autofocus autocomplete="off" autocapitalize="characters" spellcheck="false">
<button class="continue">Continue</button></form>`,
  );
}

/** The end of a flow that does not lead back to a CLI's own page. */
export function donePage(sentence: string): string {
  return page('done', 'All done', `<p>${escapeHtml(sentence)}</p>`);
}

/** A request that cannot go on; `problem` says what was wrong with it. */
export function errorPage(problem: string): string {
  return page('error', 'This does not work', `<p class="banner" role="alert">${escapeHtml(problem)}</p>`);
}
