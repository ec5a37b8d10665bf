/** Test files that run at the same time take their ports from ranges of their own, and so do the processes they start. */
const slice = Number(process.env.VITEST_POOL_ID ?? 1) - 1;
process.env.SLUICE_FREE_PORTS = `${10_000 + (slice % 5) * 2000}-${11_999 + (slice % 5) * 2000}`;
