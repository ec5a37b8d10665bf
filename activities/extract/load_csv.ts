/** Loading a CSV file of assets into its copy: as it is where that is right, else row by row, bounded in memory. */
import { createHash } from 'node:crypto';
import { parse } from 'csv-parse';
import type { AssetEffects } from '../../model/batch.ts';
import { noEffects } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import { parseInstant } from '../../model/instant.ts';
import type { TableSchema } from '../../model/table.ts';
import type { Reject } from '../capture/stream.ts';
import { Block } from '../load/block.ts';
import type { ClickHouseSink } from '../load/clickhouse_sink.ts';
import { lookUpIn } from '../load/look_up.ts';
import type { RowsInsert } from '../load/rows_insert.ts';
import { insertBytes } from '../load/rows_insert.ts';
import { timeText } from '../load/time_text.ts';
import { TableStage } from '../transform/stage.ts';
import { explainAssetVersion, loadedColumns } from './asset_copy.ts';
import { csvColumns, type Fields, findFault } from './asset_row.ts';
import type { CsvFile, CsvSummary } from './csv_file.ts';

/** Bytes of TSV, and rejects, that are sent at once. */
const blockBytes = 4 * 1024 * 1024;
const rejectsAtOnce = 1000;

export interface LoadOptions {
  sink: ClickHouseSink;
  table: TableSchema;
  file: CsvFile;
  summary: CsvSummary;
  /** Id of the batch: prefix of all inserts' ids. */
  id: string;
  /** Told after each part how many rows are in. */
  onRows?: (rows: number) => void;
}

/** Loads a finished file. Answers what that did to the copy. Errors: those of the sink, `conservation`. */
export async function loadCsv(options: LoadOptions): Promise<AssetEffects> {
  const { summary, table } = options;
  const asItIs = summary.faulty === 0 && !table.rules;
  const effects = asItIs ? await loadWhole(options) : await loadRows(options);
  if (effects.written + effects.rejected >= summary.rows) return effects;
  throw new SluiceError(
    'conservation',
    `${summary.file} has ${summary.rows} rows; ClickHouse confirmed ${effects.written}, and ${effects.rejected} were held back`,
    'Look at ClickHouse’s log.',
    { table: table.asset_id, file: summary.file },
  );
}

/** Every row was checked when the file was written: ClickHouse reads it as it is, in few large inserts. */
async function loadWhole({ sink, table, file, id, onRows }: LoadOptions): Promise<AssetEffects> {
  const effects = noEffects();
  let insert: RowsInsert | undefined;
  let sent = 0;
  try {
    for (const [index, part] of file.parts.entries()) {
      const bytes = await file.read(part);
      insert ??= sink.clickhouse.openCsv(table.asset_id, loadedColumns, `${id}/${index}`);
      await insert.write(bytes);
      sent += bytes.length;
      if (sent >= insertBytes || index === file.parts.length - 1) {
        effects.written += await insert.end();
        insert = undefined;
        sent = 0;
      }
      effects.effects += part.rows;
      effects.bytes += bytes.length;
      onRows?.(effects.effects);
    }
    return effects;
  } catch (error) {
    insert?.cancel(error as Error);
    throw error;
  }
}

/** Row by row: what cannot enter the copy is kept as a reject, with its file and line. */
async function loadRows(options: LoadOptions): Promise<AssetEffects> {
  const { sink, table, file, summary, id, onRows } = options;
  const effects = noEffects();
  let block = new Block(256 * 1024);
  let rejects: Reject[] = [];
  let parts = 0;
  const stage = table.rules && new TableStage(table);
  const lookUp = lookUpIn(sink.clickhouse);
  /** By the rows' versions, which are all different. */
  const places = new Map<string, string>();
  const send = async () => {
    parts++;
    if (stage) {
      const held: Reject[] = [];
      await stage.lookUp([block], lookUp);
      await stage.apply(block, held, 'tombstone');
      rejects.push(...held.map((reject) => placed(reject, places.get(reject.version) ?? summary.file)));
      places.clear();
    }
    if (block.rows > 0) effects.written += await sink.write(table, block, `${id}/${parts}`);
    if (rejects.length > 0) await sink.reject(table.asset_id, rejects, `${id}/${parts}`);
    effects.rejected += rejects.length;
    effects.bytes += block.length;
    block = new Block(256 * 1024);
    rejects = [];
    onRows?.(effects.effects);
  };
  let lines = 1;
  for await (const { record: texts, raw } of readRecords(file)) {
    const place = `${summary.file}:${lines + 1}`;
    lines += count(raw, '\n');
    const record = withNulls(texts, raw);
    effects.effects++;
    const fault = findFault(record);
    if (fault) rejects.push(rejectOf(record, fault, place));
    else {
      writeRow(block, record);
      if (stage) places.set(record[6] ?? '', place);
    }
    if (block.length >= blockBytes || rejects.length >= rejectsAtOnce) await send();
  }
  await send();
  return effects;
}

/** Records with their text: what the parser can tell of each field would cost six times as much as the fields. */
function readRecords(file: CsvFile): AsyncIterable<{ record: string[]; raw: string }> {
  const parser = parse({ raw: true, from: 2, relax_column_count: true, record_delimiter: '\n' });
  file
    .stream()
    .on('error', (error) => parser.destroy(error))
    .pipe(parser);
  return parser as AsyncIterable<{ record: string[]; raw: string }>;
}

/** The fields of a record, where an unquoted \N, and only that, is no value. */
function withNulls(texts: string[], raw: string): Fields {
  if (!texts.includes('\\N')) return texts;
  let at = 0;
  return texts.map((text) => {
    const quoted = raw[at] === '"';
    at += text.length + (quoted ? 2 + count(text, '"') : 0) + 1;
    return quoted || text !== '\\N' ? text : null;
  });
}

function count(text: string, sign: string): number {
  let found = 0;
  for (let at = text.indexOf(sign); at >= 0; at = text.indexOf(sign, at + 1)) found++;
  return found;
}

function rejectOf(fields: Fields, fault: { column: string; reason: string }, place: string): Reject {
  const at = parseInstant(fields[4] ?? '') ?? 0n;
  const texts = csvColumns.map((name, index) => [name, fields[index]] as const).filter(([name]) => name !== '_version');
  const reject = {
    key: JSON.stringify({ id: fields[0] ?? null }),
    version: /^\d{1,39}$/.test(fields[6] ?? '') ? fields[6]! : '0',
    column: fault.column,
    reason: fault.reason,
    row: JSON.stringify(Object.fromEntries(texts)),
    committed_at: timeText(Number(at / 1000n)),
  };
  return placed(reject, place);
}

/** A reject with file and line. Its version says what was held back, and not by which run: pulled again it is the same reject. */
function placed(reject: Reject, place: string): Reject {
  const content = createHash('sha256').update(reject.row).digest().readBigUInt64BE();
  const { updated } = explainAssetVersion(BigInt(reject.version));
  return { ...reject, version: String((updated << 64n) + content), reason: `${place}: ${reject.reason}` };
}

/** One row of the copy, as TSV. */
function writeRow(block: Block, fields: Fields): void {
  const [id, name, kind, value, updated, deleted, version] = fields;
  const at = parseInstant(updated ?? '') ?? 0n;
  const texts = [
    escaped(id),
    escaped(name),
    escaped(kind),
    value ?? '\\N',
    nanosecondText(at),
    version ?? '0',
    deleted ?? '0',
    timeText(Number(at / 1000n)),
  ];
  const bytes = Buffer.from(`${texts.join('\t')}\t`);
  block.reserve(bytes.length);
  block.beginRow();
  bytes.copy(block.bytes, block.length);
  block.length += bytes.length;
  block.endRow();
}

const signs: Record<string, string> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r', '\0': '\\0' };

function escaped(text: string | null | undefined): string {
  return text === null || text === undefined ? '\\N' : text.replace(/[\\\t\n\r\0]/g, (sign) => signs[sign]!);
}

/** DateTime64(9) in TSV. */
function nanosecondText(at: bigint): string {
  return `${timeText(Number(at / 1000n))}${String(at % 1000n).padStart(3, '0')}`;
}
