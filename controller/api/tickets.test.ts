import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { newMachineId, newSessionId } from '../../protocol/ids.ts';
import { type Caller, OPERATOR } from './caller.ts';
import { createTickets, TICKET_LIFETIME_MS } from './tickets.ts';

const caller: Caller = { userId: OPERATOR, role: 'operator', proof: { kind: 'web_session', id: 'w' } };
const invalid = (message: RegExp) =>
  expect.objectContaining({ code: 'ticket_invalid', message: expect.stringMatching(message) });

describe('tickets', () => {
  it('opens once what it was issued for, for whom', () => {
    const tickets = createTickets(randomBytes(32));
    const id = newSessionId();
    const { ticket } = tickets.issue('desktop', id, caller);
    expect(tickets.open('desktop', ticket)).toEqual({ target: id, caller });
    expect(() => tickets.open('desktop', ticket)).toThrow(invalid(/used before/));
  });

  it('stays spent in another spelling of the same signature', () => {
    const tickets = createTickets(randomBytes(32));
    const { ticket } = tickets.issue('desktop', newSessionId(), caller);
    tickets.open('desktop', ticket);
    expect(() => tickets.open('desktop', `${ticket}=`)).toThrow(invalid(/used before/));
    expect(() => tickets.open('desktop', `${ticket.split('.')[0]}=.${ticket.split('.')[1]}`)).toThrow(
      invalid(/not ours/),
    );
  });

  it('stays spent after a restart with the same key', () => {
    const key = randomBytes(32);
    const before = createTickets(key);
    const { ticket } = before.issue('desktop', newSessionId(), caller);
    before.open('desktop', ticket);
    expect(() => createTickets(key).open('desktop', ticket)).toThrow(invalid(/not ours/));
  });

  it('lives for a minute', () => {
    let time = 1_000_000;
    const tickets = createTickets(randomBytes(32), () => time);
    const early = tickets.issue('terminal', newMachineId(), caller);
    const late = tickets.issue('terminal', newMachineId(), caller);
    expect(early.expiresAt.getTime()).toBe(time + TICKET_LIFETIME_MS);
    time += TICKET_LIFETIME_MS - 1;
    tickets.open('terminal', early.ticket);
    time += 1;
    expect(() => tickets.open('terminal', late.ticket)).toThrow(invalid(/too old/));
  });

  it('is for one purpose, and a refusal does not spend it', () => {
    const tickets = createTickets(randomBytes(32));
    const { ticket } = tickets.issue('terminal', newMachineId(), caller);
    expect(() => tickets.open('desktop', ticket)).toThrow(invalid(/another purpose/));
    expect(tickets.open('terminal', ticket).caller).toEqual(caller);
  });

  it.each(['', 'x', '.', 'a.b.c', 'e30.AAAA'])('refuses %j', (text) => {
    expect(() => createTickets(randomBytes(32)).open('desktop', text)).toThrow(invalid(/malformed|not ours/));
  });

  it('refuses changed claims and other keys', () => {
    const tickets = createTickets(randomBytes(32));
    const { ticket } = tickets.issue('desktop', newSessionId(), caller);
    const [body = '', signature] = ticket.split('.');
    const claims: object = JSON.parse(Buffer.from(body, 'base64url').toString());
    const forged = Buffer.from(JSON.stringify({ ...claims, target: newSessionId() })).toString('base64url');
    expect(() => tickets.open('desktop', `${forged}.${signature}`)).toThrow(invalid(/not ours/));
    expect(() => createTickets(randomBytes(32)).open('desktop', ticket)).toThrow(invalid(/not ours/));
  });

  it('needs a key of a decent length', () => {
    expect(() => createTickets(randomBytes(31))).toThrow(/32 bytes/);
  });
});
