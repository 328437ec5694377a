/** Points at which a fake can be told to wait, so that a test acts exactly there. */

export interface Hold {
  /** Resolves when the fake has come to the point. */
  readonly reached: Promise<void>;
  /** Lets it go on, and does not stop it there again. */
  release(): void;
}

export class Gates<Point extends string> {
  readonly #holds = new Map<Point, { arrive: () => void; opened: Promise<void> }>();

  /** From now on the fake waits at the point until released. */
  hold(point: Point): Hold {
    const reached = Promise.withResolvers<void>();
    const opened = Promise.withResolvers<void>();
    this.#holds.set(point, { arrive: reached.resolve, opened: opened.promise });
    return {
      reached: reached.promise,
      release: () => {
        this.#holds.delete(point);
        opened.resolve();
      },
    };
  }

  /** Called by the fake. */
  async pass(point: Point): Promise<void> {
    const hold = this.#holds.get(point);
    hold?.arrive();
    await hold?.opened;
  }
}
