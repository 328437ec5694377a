/** Ends what is open when its reason is gone: the session or machine is over, the caller was revoked, we stop. */
import type { Caller, Proof } from '../api/caller.ts';
import { CLOSE, StreamEnd } from './bridge.ts';

export interface OpenStream extends Disposable {
  /** Aborts with a StreamEnd. */
  readonly signal: AbortSignal;
  end(code: number, reason: string): void;
}

export interface OpenStreams {
  /** How many are open, by purpose. */
  count(): ReadonlyMap<string, number>;
  /**
   * Registers a stream. `stillThere` is asked every `checkMs`: a sentence ends the stream with it, undefined keeps it.
   */
  open(purpose: string, caller: Caller, stillThere: () => Promise<string | undefined>): OpenStream;
  /** Ends the streams of a browser session that signs out. */
  endOf(proof: Proof): void;
  /** Ends all of them; new ones are ended at once. */
  endAll(): void;
}

const CHECK_MS = 10_000;

/**
 * @param holds whether the key or browser session of a caller is still valid
 * @param onError told when a check itself fails; the stream stays, since a database pause must not cut desktops
 */
export function createOpenStreams(
  holds: (proof: Proof) => Promise<boolean>,
  onError: (error: unknown) => void,
  checkMs: number = CHECK_MS,
): OpenStreams {
  const open = new Map<AbortController, { purpose: string; proof: Proof }>();
  let stopping = false;
  const stopReason = () => new StreamEnd(CLOSE.goingAway, 'the controller stops');

  return {
    count() {
      const counts = new Map<string, number>();
      for (const { purpose } of open.values()) counts.set(purpose, (counts.get(purpose) ?? 0) + 1);
      return counts;
    },

    open(purpose, caller, stillThere) {
      const controller = new AbortController();
      open.set(controller, { purpose, proof: caller.proof });
      let checking = false;
      const check = async () => {
        if (checking) return;
        checking = true;
        try {
          if (!(await holds(caller.proof))) {
            controller.abort(new StreamEnd(CLOSE.policy, 'the identity that opened this was revoked'));
          }
          const gone = await stillThere();
          if (gone !== undefined) controller.abort(new StreamEnd(CLOSE.normal, gone));
        } catch (error) {
          onError(error);
        } finally {
          checking = false;
        }
      };
      const timer = setInterval(() => void check(), checkMs);
      timer.unref();
      if (stopping) controller.abort(stopReason());
      return {
        signal: controller.signal,
        end: (code, reason) => controller.abort(new StreamEnd(code, reason)),
        [Symbol.dispose]() {
          clearInterval(timer);
          open.delete(controller);
        },
      };
    },

    endOf(proof) {
      for (const [controller, stream] of open) {
        if (stream.proof.kind === proof.kind && stream.proof.id === proof.id) {
          controller.abort(new StreamEnd(CLOSE.policy, 'signed out'));
        }
      }
    },

    endAll() {
      stopping = true;
      for (const controller of open.keys()) controller.abort(stopReason());
    },
  };
}
