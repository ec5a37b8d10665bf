/** What is compared: one way that changes take from PostgreSQL to where they are used. */
export interface Side {
  /** Process ids by name: whose processor time and memory this way costs, PostgreSQL apart. */
  readonly pids: Record<string, number>;
  /**
   * Reads the `changes` that wait in PostgreSQL's log. It is stopped before and after. Fails when what arrived last is
   * not what was written last.
   */
  drain(waiting: Waiting): Promise<Drained>;
  /** The source's table was truncated: takes over that too, while nobody measures. It is stopped before and after. */
  empty(): Promise<void>;
  /** Reads on, until `stop`. */
  resume(): Promise<void>;
  stop(): Promise<void>;
  /** Begins to look for rows that arrive, while it reads. */
  watch(): Promise<Watch>;
  /** Takes away what it made in PostgreSQL. */
  remove(): Promise<void>;
}

export interface Waiting {
  changes: number;
  /** The row whose deletion is the last change. */
  lastId: number;
}

export interface Drained {
  /** From the order to read on, until the last change was there. */
  seconds: number;
  /** From the first change that was there until the last; undefined where the first is not known. */
  secondsFromFirst?: number;
}

export interface Watch {
  /**
   * Waits until the row `last` is there, and answers when rows arrived: milliseconds since 1970 by id. `changes` were
   * written since the watch began.
   */
  arrivals(ids: number[], changes: number): Promise<Map<number, number>>;
}
