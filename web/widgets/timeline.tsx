import type { TimelineEvent } from '../../protocol/api.ts';
import { duration, timeOfDay, useNow } from '../data/clock.ts';
import { type Step, type SubStep, stepsOf } from '../data/timeline.ts';

const STATUS_WORDS: Readonly<Record<Step['status'], string>> = {
  done: 'done',
  current: 'under way',
  stopped: 'stopped here',
  ahead: 'still to come',
  ended: 'end',
};

/** A session's steps from top to bottom, each with its time; what its machine did is nested below the step. */
export function Timeline({ events }: { readonly events: readonly TimelineEvent[] }) {
  const steps = stepsOf(events);
  const running = steps.some((step) => step.status === 'current');
  const now = useNow(100, running);
  return (
    <ol className="timeline" aria-label="Steps of this login">
      {steps.map((step) => (
        <StepRow key={step.state} step={step} now={now} />
      ))}
    </ol>
  );
}

function StepRow({ step, now }: { readonly step: Step; readonly now: number }) {
  const { at, leftAt, status } = step;
  const took =
    at === null || status === 'ended'
      ? null
      : Date.parse(leftAt ?? new Date(now).toISOString()) - Date.parse(at);
  const bad = status === 'ended' && step.state !== 'completed' && step.state !== 'cancelled';
  return (
    <li
      className={`step step-${status}${bad ? ' step-bad' : ''}`}
      aria-current={status === 'current' ? 'step' : undefined}
    >
      <div className="step-line">
        <span className="step-title">{step.title}</span>
        <span className="visually-hidden"> ({STATUS_WORDS[status]}) </span>
        {took !== null && <span className="step-time">{duration(took)}</span>}
        {status === 'ended' && at !== null && <Clock at={at} />}
      </div>
      {step.detail !== null && <p className="step-detail">{step.detail}</p>}
      {step.children.length > 0 && (
        <ul className="substeps">
          {step.children.map((child) => (
            <SubStepRow key={child.key} child={child} />
          ))}
        </ul>
      )}
    </li>
  );
}

function SubStepRow({ child }: { readonly child: SubStep }) {
  return (
    <li>
      <div className="step-line">
        <span title={child.detail ?? undefined}>{child.title}</span>
        <time className="step-time" dateTime={child.at} title={timeOfDay(child.at)}>
          {child.tookMs === null ? `at ${duration(child.offsetMs)}` : duration(child.tookMs)}
        </time>
      </div>
    </li>
  );
}

function Clock({ at }: { readonly at: string }) {
  return (
    <time className="step-time" dateTime={at}>
      {timeOfDay(at)}
    </time>
  );
}
