/** A list of events that grows until it is closed, and can be read from any place by many readers. */
export class Feed<T> {
  readonly #events: T[] = [];
  #closed = false;
  #waiters = new Set<() => void>();

  get last(): T | undefined {
    return this.#events.at(-1);
  }

  get closed(): boolean {
    return this.#closed;
  }

  push(event: T): void {
    if (this.#closed) return;
    this.#events.push(event);
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  /** Events from `from` (`start`, or `last`: the newest one first) until the feed closes or `signal` aborts. */
  async *read(from: 'start' | 'last', signal: AbortSignal): AsyncGenerator<T> {
    let next = from === 'start' ? 0 : Math.max(0, this.#events.length - 1);
    while (!signal.aborted) {
      const event = this.#events[next];
      if (event !== undefined) {
        next += 1;
        yield event;
      } else if (this.#closed) {
        return;
      } else {
        await this.#more(signal);
      }
    }
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = new Set();
    for (const wake of waiters) wake();
  }

  #more(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        signal.removeEventListener('abort', wake);
        this.#waiters.delete(wake);
        resolve();
      };
      signal.addEventListener('abort', wake, { once: true });
      this.#waiters.add(wake);
    });
  }
}
