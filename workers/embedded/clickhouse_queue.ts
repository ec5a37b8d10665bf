/** Work in order of arrival, a bounded number at once; what has not begun can still be taken back. */

export interface Queued<T> {
  result: Promise<T>;
  /** True when the work had not begun; its result is then the given error. */
  takeBack(error: Error): boolean;
}

export class WorkQueue {
  readonly #atOnce: number;
  readonly #waiting: { start(): Promise<void>; reject(error: Error): void }[] = [];
  #running = 0;

  /** With `atOnce` = 1 the order of arrival is the order of execution: a fence. */
  constructor(atOnce: number) {
    this.#atOnce = atOnce;
  }

  add<T>(work: () => Promise<T>): Queued<T> {
    let entry = { start: () => Promise.resolve(), reject: (_: Error) => {} };
    const result = new Promise<T>((resolve, reject) => {
      entry = { start: () => work().then(resolve, reject), reject };
    });
    this.#waiting.push(entry);
    this.#startNext();
    return {
      result,
      takeBack: (error) => {
        const index = this.#waiting.indexOf(entry);
        if (index < 0) return false;
        this.#waiting.splice(index, 1);
        entry.reject(error);
        return true;
      },
    };
  }

  #startNext(): void {
    if (this.#running >= this.#atOnce) return;
    const entry = this.#waiting.shift();
    if (entry === undefined) return;
    this.#running++;
    void entry.start().finally(() => {
      this.#running--;
      this.#startNext();
    });
  }
}
