/** What work costs the processor, for tests that bound it: neighbours on its cores and caches must not decide. */

/** Milliseconds of the processor since `before`, an answer of `process.cpuUsage()`. */
export function processorTime(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** How many times longer than on a quiet machine of today the processor takes now, by some work with long numbers. */
export function slowness(): number {
  const before = process.cpuUsage();
  let digits = 0;
  for (let i = 0n; i < 300n; i++) digits += String(10n ** 999n + i).length;
  return Math.max(1, (processorTime(before) * digits) / 300_000 / 5);
}
