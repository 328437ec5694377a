import type { Machine } from '../../protocol/api.ts';
import { duration, timeOfDay } from '../data/clock.ts';
import { bootChecklist, CHECKPOINT_WORDS } from '../data/words.ts';

/**
 * A machine's boot, as the checklist it is: what was reached, in that order, each with the time since the one before,
 * then what was not. When the machine ended before its last point, the first one missing is marked as the place where
 * it stopped.
 */
export function BootList({ machine }: { readonly machine: Machine }) {
  const stamps = new Map(machine.stamps.map((stamp) => [stamp.checkpoint, stamp.at]));
  const checklist = bootChecklist(machine.kind);
  // The CLI and the desktop get ready side by side, so the order differs from boot to boot.
  const reached = checklist
    .filter((point) => stamps.has(point))
    .sort((a, b) => Date.parse(stamps.get(a) ?? '') - Date.parse(stamps.get(b) ?? ''));
  const points = [...reached, ...checklist.filter((point) => !stamps.has(point))];
  const missing = points.findIndex((point) => !stamps.has(point));
  const booting =
    machine.state === 'requested' || machine.state === 'creating' || machine.state === 'booting';
  // One that is gone keeps the error of its boot, if that is how it ended.
  const ended =
    machine.state === 'failed' ||
    (['stopped', 'destroying', 'destroyed'].includes(machine.state) && machine.error !== null);
  let before = Date.parse(machine.createdAt);
  return (
    <ol className="timeline" aria-label="Boot checklist">
      {points.map((point, index) => {
        const at = stamps.get(point);
        const since = at === undefined ? 0 : Date.parse(at) - before;
        if (at !== undefined) before = Date.parse(at);
        let status = 'ahead';
        if (at !== undefined) status = 'done';
        else if (index === missing && ended) status = 'ended step-bad';
        else if (index === missing && booting) status = 'current';
        return (
          <li
            key={point}
            className={`step step-${status}`}
            aria-current={status === 'current' ? 'step' : undefined}
          >
            <div className="step-line">
              <span className="step-title">
                {status.startsWith('ended')
                  ? CHECKPOINT_WORDS[point].missing
                  : CHECKPOINT_WORDS[point].reached}
              </span>
              {at !== undefined && (
                <time className="step-time" dateTime={at} title={timeOfDay(at)}>
                  <span className="visually-hidden">reached after </span>
                  {duration(since)}
                </time>
              )}
              {status.startsWith('ended') && <span className="step-time">stopped here</span>}
              {status === 'ahead' && <span className="visually-hidden"> not reached</span>}
            </div>
          </li>
        );
      })}
    </ol>
  );
}
