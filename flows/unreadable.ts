/** What stands for an input that could not be decoded, so that readers can refuse it as they refuse any wrong input. */
export class Unreadable {
  /** Why, without anything of the input itself. */
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}
