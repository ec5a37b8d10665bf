/** Progress of a benchmark: to stderr, because stdout is the JSON alone. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}
