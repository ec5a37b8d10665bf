import { describe, expect, it } from 'vitest';
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import { removeSource } from '../activities/capture/prepare.ts';
import { type AuditResult, auditSource, Proof } from '../activities/lineage/audit.ts';
import { readRecords, recordHash } from '../activities/load/batches.ts';
import { attemptsLimit, type BatchRecord } from '../model/batch.ts';
import { capture, client, copied, proxies, spoiled, sql, unreadSlot } from './capture_fixture.ts';
import type { CaptureHarness } from './capture_harness.ts';

const reader = new PostgresSource();
const passed = (position: string, target: string) => reader.passed(position, target);

type Recorded = BatchRecord & { recorded_at: string };

const clickhouseOf = (harness: CaptureHarness) => harness.context.clickhouse('read');
const audit = (harness: CaptureHarness, since?: string) =>
  auditSource(clickhouseOf(harness), harness.options.source, passed, since);
const allRecords = (harness: CaptureHarness) =>
  readRecords(clickhouseOf(harness), 'source = {source:String}', { source: harness.options.source }, 'lease, seq, id');

/** The same proof over records in memory. */
function prove(records: Recorded[]): AuditResult {
  const proof = new Proof('s', passed, false);
  for (const record of records.toSorted((a, b) => a.lease - b.lease || a.seq - b.seq || (a.id < b.id ? -1 : 1)))
    proof.take(record);
  return proof.end();
}

const faultsOf = (records: Recorded[]) => prove(records).faults.map(({ fault, batch }) => `${fault} ${batch}`);

/** Two tables with a life: snapshots in chunks, changes of all kinds, large transactions, idle times, several leases. */
async function lively(name: string): Promise<CaptureHarness> {
  await sql(
    `CREATE TABLE ${name}_a (id int PRIMARY KEY, v text)`,
    `CREATE TABLE ${name}_b (id int PRIMARY KEY, v text)`,
  );
  await sql(`INSERT INTO ${name}_a SELECT g, 'x' FROM generate_series(1, 100) g`);
  const harness = capture([`${name}_a`, `${name}_b`], { bufferSize: 100 });
  await harness.prepare();
  harness.startLease();
  await harness.plan(`${name}_a`, [['30'], ['60']]);
  for (const chunk of [2, 0, 1]) await harness.copyChunk(`${name}_a`, chunk);
  await copied(harness, `${name}_a`);
  await copied(harness, `${name}_b`);
  for (let turn = 0; turn < 3; turn += 1) {
    await sql(
      `INSERT INTO ${name}_b SELECT g, 'large' FROM generate_series(${turn * 1000 + 1}, ${turn * 1000 + 900}) g`,
    );
    await sql(`UPDATE ${name}_a SET id = id + 1000 WHERE id % 10 = ${turn}`, `DELETE FROM ${name}_b WHERE id % 3 = 0`);
    await harness.drain(client);
    await sql(`INSERT INTO ${name}_a VALUES (${9000 + turn}, 'one')`);
    await harness.drain(client);
    await harness.stop();
    harness.startLease();
  }
  await sql(`TRUNCATE ${name}_b`, `INSERT INTO ${name}_b VALUES (1, 'after')`);
  await harness.drain(client);
  await harness.stop();
  return harness;
}

describe('the records of a source', () => {
  it('prove a snapshot that took longer than a lease, from any moment of it on', async () => {
    await sql('CREATE TABLE lengthy (id int PRIMARY KEY)', 'INSERT INTO lengthy SELECT generate_series(1, 90)');
    const harness = capture(['lengthy']);
    await harness.prepare();
    harness.startLease();
    await harness.plan('lengthy', [['30'], ['60']]);
    await harness.copyChunk('lengthy', 0);
    await harness.stop();
    harness.startLease();
    for (const chunk of [1, 2]) await harness.copyChunk('lengthy', chunk);
    await copied(harness, 'lengthy');
    await harness.stop();
    const second = (await allRecords(harness)).find(
      (record) => record.kind === 'begin' && record.lease > 2 * attemptsLimit,
    )!;
    expect((await audit(harness, second.recorded_at)).faults).toEqual([]);
  });

  it('prove to be whole through leases, snapshots, large transactions and truncates', async () => {
    const harness = await lively('whole');
    const result = await audit(harness);
    expect(result).toMatchObject({ faults: [], notes: [expect.stringContaining('begins anew')] });
    const records = await allRecords(harness);
    expect(records.filter((record) => record.inner !== '').length).toBeGreaterThan(3);
    expect(new Set(records.map((record) => record.kind))).toEqual(
      new Set(['begin', 'rows', 'truncate', 'idle', 'chunk', 'snapshot', 'complete']),
    );
    expect(result).toMatchObject({ records: records.length, leases: 5, to: records.findLast(isStream)!.position_to });
    expect(result.effects).toBeGreaterThan(2700);
    const since = records.find((record) => record.kind === 'begin' && record.lease > 3 * attemptsLimit)!.recorded_at;
    const partial = await audit(harness, since);
    expect(partial.faults).toEqual([]);
    expect(partial.records).toBeLessThan(result.records);
  }, 60_000);

  it('prove to be whole after a lease that died late, with a log that was made anew, and to the end', async () => {
    await sql('CREATE TABLE undead (id int PRIMARY KEY, v text)', `INSERT INTO undead VALUES (1, 'a'), (2, 'a')`);
    let late = false;
    const clickhouse = await spoiled(({ query }) => (late && query.startsWith('INSERT') ? 'late' : 'passed'));
    const harness = capture(['undead'], { clickhouse });
    await harness.begin();
    await harness.drain(client);
    late = true;
    await sql(`UPDATE undead SET v = 'b'`);
    await expect(harness.leaseEnd()).rejects.toThrow();
    const other = capture(['undead'], { source: harness.options.source });
    other.takeOver(harness);
    other.startLease(600, 2);
    await sql(`UPDATE undead SET v = 'c' WHERE id = 1`);
    await other.drain(client);
    for (const proxy of proxies) await proxy.settled();
    await other.stop();
    expect((await audit(other)).faults).toEqual([]);
    await sql(`SELECT pg_drop_replication_slot('${await unreadSlot(harness)}')`);
    other.dropTable('undead');
    await other.addTable('undead', 2);
    other.startLease();
    await other.snapshot('undead');
    await other.drain(client);
    await other.stop();
    const { request, tables } = other;
    await removeSource(other.context, { request, tables, drop_copies: false, force: false });
    const result = await audit(other);
    expect(result.faults).toEqual([]);
    expect(result.notes.filter((note) => note.includes('begins anew')).length).toBe(2);
  }, 60_000);

  it('tell what a lease wrote beside its successor, and count it no more', async () => {
    const records = (await allRecords(await lively('beside'))).filter(isStream);
    // The last batch of a lease was on its way when the next one had begun already.
    const begin = records.findLastIndex((record) => record.kind === 'begin');
    const tail = records.slice(0, begin).findLast((record) => record.kind === 'rows')!;
    const before = records.find((record) => record.hash === tail.previous_hash)!;
    const rest = records.slice(begin);
    const back = before.position_to;
    rest[0] = { ...rest[0]!, position_from: back, position_to: back };
    rest[1] = { ...rest[1]!, position_from: back };
    const sealed = chain(rest, before.hash);
    const result = prove([
      ...records.slice(0, begin).filter(({ seq, lease }) => lease < tail.lease || seq <= tail.seq),
      ...sealed,
    ]);
    expect(result.faults).toEqual([]);
    expect(result.notes.at(-1)).toContain(`took over at ${before.id}; 1 records`);
  }, 60_000);
});

/** Seals records anew, each after the one before. */
function chain(records: Recorded[], from: string): Recorded[] {
  let head = from;
  return records.map((record) => {
    const { hash: _, recorded_at, ...rest } = { ...record, previous_hash: head };
    const sealed = { ...rest, hash: recordHash(rest), recorded_at };
    if (record.kind !== 'idle') head = sealed.hash;
    return sealed;
  });
}

function isStream(record: BatchRecord): boolean {
  return ['begin', 'rows', 'truncate', 'idle'].includes(record.kind);
}

function resealed(record: Recorded, change: Partial<BatchRecord>): Recorded {
  const { hash: _, recorded_at, ...rest } = { ...record, ...change };
  return { ...rest, hash: recordHash(rest), recorded_at };
}

describe('tampering', () => {
  it('with any field of any record is found, and with what follows from it', async () => {
    const records = await allRecords(await lively('tampered'));
    expect(faultsOf(records)).toEqual([]);
    const last = records.findLast(isStream)!;
    const changes: [string, (record: Recorded) => Partial<BatchRecord>][] = [
      ['changes', (record) => ({ changes: record.changes + 1 })],
      ['position_to', () => ({ position_to: '0/1' })],
      ['assets', (record) => ({ assets: { ...record.assets, other: Object.values(record.assets)[0]! } })],
      ['committed_last', () => ({ committed_last: '2026-01-01T00:00:00.000000Z' })],
      ['kind', () => ({ kind: 'rows' })],
      ['lease', (record) => ({ lease: record.lease + 7 })],
      ['seq', (record) => ({ seq: record.seq + 1000 })],
      ['run_id', () => ({ run_id: 'another' })],
      ['previous_hash', () => ({ previous_hash: 'another' })],
    ];
    for (const [index, record] of records.entries()) {
      for (const [what, change] of changes) {
        if (what === 'kind' && record.kind === 'rows') continue;
        if (what === 'assets' && Object.keys(record.assets).length === 0) continue;
        const tampered = records.with(index, { ...record, ...change(record) });
        expect(faultsOf(tampered), `${what} of ${record.id}`).toContain(`content ${record.id}`);
      }
      // Sealed again, it is no more what its successor follows from.
      const known = isStream(record)
        ? record.kind !== 'idle' && record !== last
        : ['chunk', 'snapshot'].includes(record.kind);
      if (known) expect(faultsOf(records.with(index, resealed(record, { run_id: 'x' }))), record.id).not.toEqual([]);
      const gone = (isStream(record) && record !== last) || known;
      if (gone) expect(faultsOf(records.toSpliced(index, 1)), `without ${record.id}`).not.toEqual([]);
    }
  }, 120_000);

  it('by another order, a doubled record, or effects that nobody accounts for is found', async () => {
    const records = await allRecords(await lively('reordered'));
    const rows = records.filter((record) => record.kind === 'rows' && record.inner === '');
    const [one, two] = rows as [Recorded, Recorded];
    const at = (record: Recorded) => records.indexOf(record);
    const swapped = records
      .with(at(one), resealed(two, { seq: one.seq }))
      .with(at(two), resealed(one, { seq: two.seq }));
    expect(faultsOf(swapped).filter((fault) => /^(link|gap|overlap)/.test(fault)).length).toBeGreaterThan(1);
    expect(faultsOf([...records, { ...one, id: `${one.id}b` }])).toContain(`overlap ${one.id}b`);
    const [asset, account] = Object.entries(one.assets)[0]!;
    const lost = resealed(one, { assets: { [asset]: { ...account, written: account.written - 1 } } });
    const found = faultsOf(records.with(at(one), lost));
    expect(found).toContain(`conservation ${one.id}`);
    expect(found.some((fault) => fault.startsWith('link '))).toBe(true);
    // A gap that is sealed well is a gap all the same.
    const later = records.slice(at(two)).filter((record) => isStream(record) && record.lease === two.lease);
    const shifted = chain(later.with(0, { ...two, position_from: 'F/0' }), two.previous_hash);
    const rest = records.filter((record) => !later.includes(record));
    expect(faultsOf([...rest, ...shifted])).toContain(`gap ${two.id}`);
  }, 60_000);

  it('in ClickHouse itself is found', async () => {
    const harness = await lively('stored');
    const writer = harness.context.clickhouse('write');
    const name = writer.name('_batches');
    const victim = (await allRecords(harness)).filter((record) => record.kind === 'rows')[3]!;
    const faults = async () => (await audit(harness)).faults.map(({ fault, batch }) => `${fault} ${batch}`);
    const where = `source = '${harness.options.source}' AND id = '${victim.id}'`;
    await writer.command(`CREATE TABLE ${writer.name('kept')} AS ${name}`);
    await writer.command(`INSERT INTO ${writer.name('kept')} SELECT * FROM ${name} FINAL WHERE ${where}`);
    const restore = () => writer.command(`INSERT INTO ${name} SELECT * FROM ${writer.name('kept')}`);
    await writer.command(
      `INSERT INTO ${name} SELECT * REPLACE (changes + 1 AS changes) FROM ${name} FINAL WHERE ${where}`,
    );
    expect(await faults()).toEqual([`content ${victim.id}`]);
    await restore();
    expect(await faults()).toEqual([]);
    await writer.command(`ALTER TABLE ${name} DELETE WHERE ${where} SETTINGS mutations_sync = 2`);
    expect((await faults()).map((fault) => fault.split(' ')[0])).toContain('missing');
    await restore();
    expect(await faults()).toEqual([]);
  }, 60_000);
});
