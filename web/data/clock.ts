import { useEffect, useState } from 'react';

/** Server's clock minus this computer's, ms. Deadlines come from the server; a wrong clock here must not move them. */
let offsetMs = 0;
/** The Date header counts whole seconds, and the answer was under way: less than this says nothing. */
const NOTICEABLE_MS = 3_000;

/** Takes note of an answer's Date header. */
export function noteServerDate(header: string | null): void {
  const served = header === null ? Number.NaN : Date.parse(header);
  if (Number.isNaN(served)) return;
  // The second named began half a second ago on average.
  const difference = served + 500 - Date.now();
  offsetMs = Math.abs(difference) < NOTICEABLE_MS ? 0 : difference;
}

const serverNow = (): number => Date.now() + offsetMs;

/** Now by the server's clock, as milliseconds since 1970, renewed every `everyMs` while `running`. */
export function useNow(everyMs: number, running: boolean): number {
  const [now, setNow] = useState(serverNow);
  useEffect(() => {
    if (!running) return;
    setNow(serverNow());
    const timer = setInterval(() => setNow(serverNow()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs, running]);
  return now;
}

/** A duration as people read it: `4 ms`, `0.14 s`, `12.3 s`, `4 min 05 s`. Input in milliseconds. */
export function duration(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 0.01) return `${Math.max(0, Math.round(ms))} ms`;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} min`;
}

/** What is left of a deadline, for a countdown: `9:58`. */
export function countdown(ms: number): string {
  const whole = Math.max(0, Math.ceil(ms / 1000));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const dated = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

/** An ISO time as a wall-clock time of day. */
export const timeOfDay = (iso: string): string => clock.format(new Date(iso));
/** An ISO time as date and time. */
export const dateTime = (iso: string): string => dated.format(new Date(iso));

/** How many bytes: `12 B`, `3.4 KiB`, `1.2 MiB`. */
export function byteSize(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** Mebibytes as GiB. */
export const gibibytes = (mebibytes: number): string => `${(mebibytes / 1024).toFixed(1)} GiB`;
