/** Which machines somebody uses now: those do not hibernate. What other controllers use is seen by `used_at`. */
import type { MachineId } from '../../protocol/ids.ts';

export interface Uses {
  /** From now until it is disposed. */
  begin(id: MachineId): Disposable;
  has(id: MachineId): boolean;
  ids(): MachineId[];
}

export function createUses(): Uses {
  const counts = new Map<MachineId, number>();
  return {
    begin(id) {
      counts.set(id, (counts.get(id) ?? 0) + 1);
      let over = false;
      return {
        [Symbol.dispose]() {
          if (over) return;
          over = true;
          const left = (counts.get(id) ?? 1) - 1;
          if (left === 0) counts.delete(id);
          else counts.set(id, left);
        },
      };
    },
    has: (id) => counts.has(id),
    ids: () => [...counts.keys()],
  };
}
