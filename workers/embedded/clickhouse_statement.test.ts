import { describe, expect, it } from 'vitest';
import { readStatement } from './clickhouse_statement.ts';

const read = (text: string) => readStatement(Buffer.from(text));

describe('readStatement', () => {
  it('finds where the data of an INSERT begin', () => {
    const head = 'INSERT INTO `a b`.`FORMAT` (`x)y`, z) SETTINGS async_insert=0 FORMAT TabSeparated';
    const statement = read(`${head}\n1\t2\n`);
    expect(statement).toEqual({ kind: 'insert', prefix: head, format: 'TabSeparated', dataStart: head.length + 1 });
  });

  it('counts bytes, not characters', () => {
    const head = 'INSERT INTO `naïve ü` FORMAT TSV';
    const bytes = Buffer.from(`${head} \r\n\n1\n`);
    const statement = readStatement(bytes);
    if (statement.kind !== 'insert') throw new Error(statement.kind);
    // The blank and the line end belong to the head; the empty line is data.
    expect(bytes.subarray(statement.dataStart).toString()).toBe('\n1\n');
    expect(statement.prefix).toBe(head);
  });

  it('gives VALUES to the engine as a format', () => {
    const statement = read("insert into t (a) values (1), ('x; y')");
    expect(statement).toMatchObject({ kind: 'insert', prefix: 'insert into t (a)  FORMAT Values', format: 'Values' });
  });

  it('knows INSERT … SELECT, whatever is in its strings', () => {
    expect(read("INSERT INTO t SELECT 'FORMAT TSV', number FROM numbers(3)")).toEqual({ kind: 'insertSelect' });
    expect(read('INSERT INTO t (a) WITH x AS (SELECT 1 AS a) SELECT a FROM x')).toEqual({ kind: 'insertSelect' });
  });

  it('refuses input(), which the engine answers without reading the data', () => {
    const sql = "INSERT INTO t SELECT a + 1 FROM input('a Int8') FORMAT CSV\n1\n";
    expect(read(sql)).toMatchObject({ kind: 'refused', code: 48 });
    expect(read('INSERT INTO t SELECT input FROM u WHERE (input) > 1')).toEqual({ kind: 'insertSelect' });
  });

  it('skips comments and quotes when it looks for the format', () => {
    expect(read('-- FORMAT A\nSELECT 1 /* FORMAT B */, \'FORMAT C\', "FORMAT D"')).toEqual({
      kind: 'other',
      format: undefined,
      reads: true,
    });
    expect(read('SELECT 1\nFORMAT JSONEachRow;')).toEqual({ kind: 'other', format: 'JSONEachRow', reads: true });
    expect(read('CREATE TABLE t (a Int8) ENGINE = Memory')).toEqual({ kind: 'other', format: undefined, reads: false });
  });

  it('refuses several statements, but not a semicolon at the end', () => {
    expect(read('SELECT 1; SELECT 2')).toMatchObject({ kind: 'refused', code: 62 });
    expect(read("INSERT INTO t SELECT ';'; DROP TABLE t")).toMatchObject({ kind: 'refused', code: 62 });
    expect(read("SELECT ';' ; -- done")).toMatchObject({ kind: 'other' });
  });

  it('refuses to write files', () => {
    expect(read("SELECT 1 INTO /* x */ OUTFILE 'f'")).toMatchObject({ kind: 'refused', code: 1 });
  });

  it('reads the condition of KILL QUERY', () => {
    expect(read("KILL QUERY WHERE query_id LIKE 'sluice-%' SYNC")).toEqual({
      kind: 'kill',
      condition: "query_id LIKE 'sluice-%'",
    });
    expect(read('KILL QUERY WHERE 1 ;')).toEqual({ kind: 'kill', condition: '1' });
  });

  it('answers for anything at all', () => {
    const pieces = [
      'INSERT',
      'INTO',
      't',
      '(',
      ')',
      "'",
      '"',
      '`',
      '--',
      '/*',
      '*/',
      'FORMAT',
      ';',
      '\\',
      '\n',
      '$$',
      '\xff',
    ];
    let seed = 7;
    const random = (below: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return seed % below;
    };
    for (let round = 0; round < 3000; round++) {
      const text = Array.from({ length: random(12) }, () => pieces[random(pieces.length)]).join(' ');
      expect(() => read(text), JSON.stringify(text)).not.toThrow();
    }
  });
});
