/**
 * Proving from the records alone that nothing was lost on the way: every effect accounted for, every record as it was
 * written, none missing, and no gap and no overlap of positions from the first record to the last.
 *
 * The proof reads the records once, in the order of leases, and remembers little: hashes of a few leases back and of the
 * chunks of snapshots, and marks of rows that were released.
 */
import { type AssetEffects, type BatchRecord, streamKinds } from '../../model/batch.ts';
import { chunksDigest, headAt, readRecords, recordHash } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { marksOf } from '../load/releases.ts';

/**
 * What can be wrong. `content`: a record is not as it was written · `missing`: a record is gone, or stands elsewhere ·
 * `link`: it does not follow from the record that it names · `gap`, `overlap`: positions · `conservation`: effects that
 * nobody accounts for · `chunks`: a snapshot's chunks are not those that it was finished with · `slot`: the source believes
 * more to be stored than is · `unproven`: it could not be looked at.
 */
export type FaultKind =
  | 'content'
  | 'missing'
  | 'link'
  | 'gap'
  | 'overlap'
  | 'conservation'
  | 'chunks'
  | 'slot'
  | 'unproven';

export interface AuditFault {
  fault: FaultKind;
  /** Id of the batch; '' when it is about the source. */
  batch: string;
  detail: string;
}

/** What was read of a source, and what is wrong with it. */
export interface AuditResult {
  source: string;
  records: number;
  leases: number;
  /** Positions that the stream's records cover without gap, since the source was connected or its log was last lost. */
  from: string | null;
  to: string | null;
  /** Read from the source. */
  effects: number;
  /** Rows that were held back, and were written after all: each counts once, however often it is said. */
  released: number;
  faults: AuditFault[];
  /** Nothing wrong, but worth to know: beginnings, and what a lease wrote beside its successor. */
  notes: string[];
}

type Recorded = BatchRecord & { recorded_at: string };

/** True when a position is at or past another; only the source can tell. */
export type Passed = (position: string, target: string) => boolean;

/** More faults than this are counted, not listed. */
const listed = 1000;
/** Leases back that a new one may go on from: attempts that died at once stand between. */
const remembered = 8;
const pageSize = 5_000;

/** A place that a lease may go on from. */
interface Head {
  id: string;
  lease: number;
  /** Where the record ends, and where the idle record behind it does. */
  to: string;
  idleTo: string;
  /** Records of its lease behind it. */
  followers: number;
}

/** Reads all records of a source, from a time on when one is given, and says what is wrong with them. */
export async function auditSource(
  clickhouse: ClickHouse,
  source: string,
  passed: Passed,
  since?: string,
): Promise<AuditResult> {
  const proof = new Proof(source, passed, since !== undefined);
  const first = since === undefined ? 0 : await firstLeaseOf(clickhouse, source, since);
  let place: [number, number, string] = [first, 0, ''];
  for (;;) {
    const [lease, seq, id] = place;
    const where = `source = {source:String} AND lease >= {lease:UInt64} AND (lease, seq, id) > ({lease:UInt64}, {seq:UInt64}, {id:String})`;
    const page = await readRecords(clickhouse, where, { source, lease, seq, id }, 'lease, seq, id', pageSize);
    for (const record of page) proof.take(record);
    const last = page.at(-1);
    if (!last || page.length < pageSize) return proof.end();
    place = [last.lease, last.seq, last.id];
  }
}

/** The lease that was running at a time, or that had the first chunk of a snapshot which ended later: its chunks are proven together. */
async function firstLeaseOf(clickhouse: ClickHouse, source: string, since: string): Promise<number> {
  const records = clickhouse.name('_batches');
  const recently = `source = {source:String} AND recorded_at >= parseDateTime64BestEffort({since:String}, 6, 'UTC')`;
  const [row] = await clickhouse.rows<{ lease: string }>(
    `SELECT toString(min(lease)) AS lease FROM ${records}
     WHERE ${recently} OR (source = {source:String} AND kind = 'chunk'
       AND position_from IN (SELECT position_from FROM ${records} WHERE ${recently} AND kind = 'snapshot'))`,
    { params: { source, since } },
  );
  return Number(row?.lease ?? 0);
}

const isStream = (record: BatchRecord): boolean => (streamKinds as readonly string[]).includes(record.kind);

export class Proof {
  readonly #passed: Passed;
  /** Earlier records are left out, so that the first ones may follow from what was not read. */
  readonly #partial: boolean;
  readonly #result: AuditResult;
  readonly #heads = new Map<string, Head>();
  #leases: number[] = [];
  /** The stream record before, and the head of the chain that the next has to name. */
  #before: Recorded | undefined;
  #head = '';
  /** Of a deployment's runs that bear one lease: the head of each one's chain, by the run's id. */
  #runs: { lease: number; hashes: Map<string, string> } = { lease: 0, hashes: new Map() };
  readonly #chunks = new Map<string, Recorded[]>();
  readonly #snapshots = new Map<string, Recorded[]>();
  readonly #completed: Recorded[] = [];
  /** By the mark of each released row, the record that says so. */
  readonly #released = new Map<string, string>();
  #faults = 0;

  constructor(source: string, passed: Passed, partial: boolean) {
    this.#passed = passed;
    this.#partial = partial;
    this.#result = {
      source,
      records: 0,
      leases: 0,
      from: null,
      to: null,
      effects: 0,
      released: 0,
      faults: [],
      notes: [],
    };
  }

  /** The next record, in the order of leases and sequences. */
  take(record: Recorded): void {
    this.#result.records += 1;
    if (recordHash(withoutHash(record)) !== record.hash)
      this.#fault('content', record, 'it is not as it was written: its hash is that of another content');
    this.#account(record);
    if (record.kind === 'chunk') push(this.#chunks, snapshotKey(record, 1), record);
    else if (record.kind === 'snapshot') push(this.#snapshots, record.id, record);
    else if (record.kind === 'complete') this.#completed.push(record);
    else if (record.kind === 'release') this.#release(record);
    else if (record.kind === 'begin' || record.kind === 'removed') this.#begin(record);
    else if (this.#before && isStream(record)) this.#follow(record);
    else if (isStream(record) || record.kind === 'backfill' || record.kind === 'extract') this.#ofRun(record);
  }

  /** What is to be said when all records were taken. */
  end(): AuditResult {
    for (const [id, snapshots] of this.#snapshots) for (const snapshot of snapshots) this.#sealed(id, snapshot);
    for (const complete of this.#completed) {
      const known = this.#snapshots.get(complete.id.replace(/\/complete$/, '')) ?? [];
      if (known.some((snapshot) => snapshot.hash === complete.previous_hash)) continue;
      if (!this.#partial) this.#fault('missing', complete, 'the snapshot that it completes is gone, or is another one');
    }
    if (this.#faults > listed) {
      const detail = `${this.#faults - listed} more faults are not listed`;
      this.#result.faults.push({ fault: 'unproven', batch: '', detail });
    }
    return this.#result;
  }

  /** Effects read = written + compacted + superseded + rejected + filtered; a truncate is carried out by a sweep. */
  #account(record: Recorded): void {
    for (const [asset, account] of Object.entries(record.assets)) {
      const { effects, truncates, written, compacted, superseded, rejected, filtered = 0 } = account;
      // What is released was read, and accounted for as rejected, before.
      if (record.kind !== 'release') this.#result.effects += effects;
      if (effects - truncates === written + compacted + superseded + rejected + filtered) continue;
      const parts = `${written} written + ${compacted} compacted + ${superseded} superseded + ${rejected} rejected + ${filtered} filtered`;
      this.#fault('conservation', record, `${asset}: ${effects - truncates} effects were read, and ${parts}`);
    }
  }

  /** Each row that was held back is released once: its record names as many rows as it has written. */
  #release(record: Recorded): void {
    const marks = marksOf(record);
    const written = sumOf(record, 'written');
    if (new Set(marks).size !== written || sumOf(record, 'rejected') > 0)
      this.#fault('conservation', record, `${marks.length} rows were released, and ${written} written`);
    const before = marks.filter((mark) => (this.#released.get(mark) ?? record.id) !== record.id);
    if (before.length > 0)
      this.#note(
        `${record.id} released ${before.length} rows beside ${this.#released.get(before[0]!)}: at their own versions, so they count once`,
      );
    for (const mark of marks) if (!this.#released.has(mark)) this.#released.set(mark, record.id);
    this.#result.released = this.#released.size;
  }

  /** A lease begins, or a source is removed: it goes on from a record of an earlier lease. */
  #begin(record: Recorded): void {
    const head = this.#heads.get(record.previous_hash);
    const before = this.#before;
    const isFirst = before === undefined && (this.#partial || record.previous_hash === '');
    const anew = record.kind === 'begin' && record.attempt === 0;
    if (before?.lease === record.lease) this.#fault('overlap', record, `${before.id} began the same lease`);
    if (!isFirst && !head)
      this.#fault('missing', record, 'the record that it goes on from is gone, or is not what it was');
    else if (head && record.kind === 'begin' && !anew && !this.#continues(record, head))
      this.#fault(
        this.#passed(head.idleTo, record.position_from) ? 'overlap' : 'gap',
        record,
        `it begins at ${record.position_from}, and ${head.id} ended at ${head.to}`,
      );
    if (head && head.followers > 0)
      this.#note(
        `${record.id} took over at ${head.id}; ${head.followers} records that lease ${head.lease} wrote beside it do not count`,
      );
    if (anew)
      this.#note(`the stream begins anew at ${record.position_from} (${record.id}): all copies were made again`);
    if (anew || isFirst) this.#result.from = record.position_from;
    this.#result.to = record.position_to;
    this.#result.leases += record.kind === 'begin' ? 1 : 0;
    this.#before = record;
    this.#remember(record);
  }

  /** An idle record behind the head says that nothing for us lay there: a lease may begin anywhere in it. */
  #continues(record: Recorded, { to, idleTo }: Head): boolean {
    const { position_from: from } = record;
    if (from === to || from === idleTo) return true;
    return this.#passed(from, to) && this.#passed(idleTo, from);
  }

  /** A record within a lease. */
  #follow(record: Recorded): void {
    const before = this.#before!;
    if (record.lease !== before.lease) {
      this.#fault('missing', record, 'the record that began its lease is gone');
    } else {
      if (record.seq > before.seq + 1)
        this.#fault('missing', record, `${record.seq - before.seq - 1} records between it and ${before.id} are gone`);
      else if (record.seq <= before.seq) this.#fault('overlap', record, `${before.id} stands at the same place`);
      else if (record.previous_hash !== this.#head)
        this.#fault('link', record, `it does not follow from ${before.id}: one of them is not what it was`);
      if (record.position_from !== before.position_to)
        this.#fault(
          this.#passed(before.position_to, record.position_from) ? 'overlap' : 'gap',
          record,
          `it begins at ${record.position_from}, and ${before.id} ended at ${before.position_to}`,
        );
    }
    if (!this.#passed(record.position_to, record.position_from))
      this.#fault('overlap', record, `it goes back from ${record.position_from} to ${record.position_to}`);
    this.#result.to = record.position_to;
    this.#before = record;
    this.#remember(record);
  }

  #remember(record: Recorded): void {
    const previous = this.#heads.get(this.#head);
    this.#head = headAt(record);
    if (this.#leases.at(-1) !== record.lease) {
      this.#leases = [...this.#leases, record.lease].slice(-remembered);
      const [oldest = 0] = this.#leases;
      for (const [hash, head] of this.#heads) if (head.lease < oldest) this.#heads.delete(hash);
    } else if (record.kind !== 'idle') {
      for (const head of this.#heads.values()) if (head.lease === record.lease) head.followers += 1;
    }
    const { id, lease, position_to: to } = record;
    if (record.kind !== 'idle') this.#heads.set(record.hash, { id, lease, to, idleTo: to, followers: 0 });
    else if (previous) previous.idleTo = to;
  }

  /** Records of a deployment: a chain a run. Runs that began in the same millisecond bear one lease. */
  #ofRun(record: Recorded): void {
    if (this.#runs.lease !== record.lease) this.#runs = { lease: record.lease, hashes: new Map() };
    const before = this.#runs.hashes.get(record.run_id);
    if (record.previous_hash !== (before ?? ''))
      this.#fault(
        before !== undefined ? 'link' : 'missing',
        record,
        'the record of its run that stands before it is gone, or is not what it was',
      );
    this.#runs.hashes.set(record.run_id, record.hash);
  }

  #sealed(id: string, snapshot: Recorded): void {
    const chunks = this.#chunks.get(`${id} ${snapshot.position_from}`) ?? [];
    const inOrder = chunks.toSorted((a, b) => a.seq - b.seq || a.lease - b.lease);
    if (chunksDigest(inOrder) === snapshot.previous_hash || (this.#partial && chunks.length === 0)) return;
    this.#fault('chunks', snapshot, `its ${chunks.length} chunks are not those that it was finished with`);
  }

  #fault(fault: FaultKind, record: Recorded, detail: string): void {
    this.#faults += 1;
    if (this.#faults <= listed) this.#result.faults.push({ fault, batch: record.id, detail });
  }

  #note(note: string): void {
    if (this.#result.notes.length < listed) this.#result.notes.push(note);
  }
}

function withoutHash({ hash: _, recorded_at: __, ...record }: Recorded): Omit<BatchRecord, 'hash'> {
  return record;
}

function sumOf({ assets }: Recorded, name: Exclude<keyof AssetEffects, 'filtered'>): number {
  return Object.values(assets).reduce((sum, account) => sum + account[name], 0);
}

/** A snapshot and its start: the id of a chunk without its last `parts`. */
function snapshotKey(record: Recorded, parts: number): string {
  return `${record.id.split('/').slice(0, -parts).join('/')} ${record.position_from}`;
}

function push<Key, Value>(lists: Map<Key, Value[]>, key: Key, value: Value): void {
  const list = lists.get(key);
  if (list) list.push(value);
  else lists.set(key, [value]);
}
