/**
 * The version of a row: a UInt128 from the source's own log order, so that ClickHouse's ReplacingMergeTree keeps the
 * right row however often, late or in whatever cuts a change is written.
 *
 *   epoch (16 bits) | commit LSN (64) | 2^39 - 1 - (commit LSN - change LSN) (39) | index within the WAL record (9)
 *
 * The change LSN and the index come from the log, never from our counting: what is sent depends on publication and
 * caches, so an ordinal that we count differs between replays, and rows get lost. The low 48 bits of a stream version
 * are never zero; those of a snapshot row are, so any change at the same position wins over it.
 */

const distanceLimit = 2 ** 39 - 1;
/** Rows of one WAL record: PostgreSQL fits at most 291 tuples on an 8 kB page. */
export const rowsPerRecordLimit = 512;

/** Version of the `index`-th row of the WAL record at `changeLsn`, in the transaction that commits at `commitLsn`. */
export function streamVersion(epoch: number, commitLsn: bigint, changeLsn: bigint, index: number): bigint {
  if (index >= rowsPerRecordLimit) throw new RangeError(`${index} rows in one log record`);
  const offset = streamOffset(Number(commitLsn - changeLsn)) + index;
  return (BigInt(epoch) << 112n) | (commitLsn << 48n) | BigInt(offset);
}

/** The low 48 bits of the version of a record's first row, by the record's distance from its commit in bytes of log. */
export function streamOffset(distance: number): number {
  if (!(distance > 0 && distance < distanceLimit))
    throw new RangeError(`a change is ${distance} bytes of log before its commit`);
  return (distanceLimit - distance) * 512;
}

/** Version of every row that a snapshot reads for a table whose stream begins at `lsn`. */
export function snapshotVersion(epoch: number, lsn: bigint): bigint {
  return (BigInt(epoch) << 112n) | (lsn << 48n);
}

/** What a version says about where it came from; a snapshot's rows have no change of their own. */
export function explainVersion(version: bigint): {
  epoch: number;
  commitLsn: bigint;
  changeLsn: bigint;
  fromSnapshot: boolean;
} {
  const commitLsn = (version >> 48n) & 0xffffffffffffffffn;
  const offset = version & 0xffffffffffffn;
  const fromSnapshot = offset === 0n;
  const distance = BigInt(distanceLimit) - (offset >> 9n);
  return {
    epoch: Number(version >> 112n),
    commitLsn,
    changeLsn: fromSnapshot ? commitLsn : commitLsn - distance,
    fromSnapshot,
  };
}
