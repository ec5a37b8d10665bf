/** What has to be ended at the end of a run, however it ends. */
export class Ending {
  readonly #steps: (() => unknown)[] = [];
  #done: Promise<void> | undefined;

  /** Remembers how to end something; newer things end first. Once the end has begun, it is ended at once. */
  add(step: () => unknown): void {
    this.#steps.push(step);
    if (this.#done) this.#done = Promise.all([this.#done, this.#run()]).then(() => {});
  }

  /** Ends all, one after the other; what cannot be ended keeps nothing else from it. May be called often. */
  end(): Promise<void> {
    this.#done ??= this.#run();
    return this.#done;
  }

  /** Runs `work` with an ending of its own, at whose end only that is ended. */
  async within<T>(work: (own: Ending) => Promise<T>): Promise<T> {
    const own = new Ending();
    this.add(() => own.end());
    try {
      return await work(own);
    } finally {
      await own.end();
    }
  }

  async #run(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step();
      } catch (error) {
        process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
      }
    }
  }
}
