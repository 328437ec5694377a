/** A histogram of sums that somebody else has made, such as the database. prom-client's own takes single observations. */
import { Histogram, type Registry } from 'prom-client';

/** What was observed since the last time: how many, how long together, and how many were at most each of the bounds. */
export interface Sums {
  readonly count: number;
  readonly seconds: number;
  readonly within: readonly number[];
}

/** One label; its values must be a closed set. */
export class SummedHistogram<L extends string> extends Histogram<L> {
  readonly #name: string;
  readonly #help: string;
  readonly #label: L;
  readonly #bounds: readonly number[];
  readonly #totals = new Map<string, Sums>();

  constructor(options: {
    name: string;
    help: string;
    label: L;
    bounds: readonly number[];
    registry: Registry;
  }) {
    const { name, help, label, bounds, registry } = options;
    super({ name, help, labelNames: [label], buckets: [...bounds], registers: [registry] });
    this.#name = name;
    this.#help = help;
    this.#label = label;
    this.#bounds = bounds;
  }

  /** Adds what was observed for one value of the label. */
  add(value: string, more: Sums): void {
    const before = this.#totals.get(value);
    this.#totals.set(value, {
      count: (before?.count ?? 0) + more.count,
      seconds: (before?.seconds ?? 0) + more.seconds,
      within: this.#bounds.map((_, index) => (before?.within[index] ?? 0) + (more.within[index] ?? 0)),
    });
  }

  /** What the registry writes as text, and what prom-client's own `get()` is made from. */
  async getForPromString() {
    const values = [...this.#totals].flatMap(([value, { count, seconds, within }]) => {
      const labels = { [this.#label]: value };
      const row = (suffix: string, amount: number, le?: number | string) => ({
        metricName: `${this.#name}_${suffix}`,
        labels: le === undefined ? labels : { le, ...labels },
        sharedLabels: {},
        value: amount,
        exemplar: null,
      });
      return [
        ...this.#bounds.map((le, index) => row('bucket', within[index] ?? 0, le)),
        row('bucket', count, '+Inf'),
        row('sum', seconds),
        row('count', count),
      ];
    });
    return { name: this.#name, help: this.#help, type: 'histogram', values, aggregator: 'sum' };
  }
}
