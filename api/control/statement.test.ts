import { describe, expect, it } from 'vitest';
import { checkStatement, singleStatement, tablesRead } from './statement.ts';

const known = ['file', 'url', 'numbers', 'remote', 'view', 'viewExplain', 'format'];
const check = (tree: string) => checkStatement(tree, known, 'sluice');

/** A SELECT as ClickHouse prints it, with lines below its only query. */
const select = (...lines: string[]) =>
  [
    'SelectWithUnionQuery (children 1)',
    ' ExpressionList (children 1)',
    '  SelectQuery (children 2)',
    ...lines.map((line) => `   ${line}`),
  ].join('\n');

describe('a statement', () => {
  it('is one: its last semicolon goes, any other is refused', () => {
    expect(singleStatement(' SELECT 1 ;\n')).toBe('SELECT 1');
    for (const sql of ['SELECT 1; SELECT 2', "SELECT ';'", 'SELECT 1;; ', '', ' ; ', 'SELECT 1\0']) {
      expect(() => singleStatement(sql)).toThrow();
    }
  });
});

describe('the beginning of a statement', () => {
  it('is a word that reads, once comments are away', () => {
    expect(singleStatement('-- a\n/* b */ #! c\n\u00a0select 1')).toBe('select 1');
    expect(singleStatement('( (WITH 1 AS x SELECT x))')).toBe('( (WITH 1 AS x SELECT x))');
    for (const sql of [
      'FROM t SELECT x',
      ', optimize = 1 SELECT 1',
      '/* SELECT 1',
      '(SHOW TABLES)',
      'SELECTED',
      '*/ SELECT 1',
    ]) {
      expect(() => singleStatement(sql), sql).toThrow(/only statements that read/);
    }
  });

  it('SHOW is followed by names and texts alone', () => {
    for (const sql of [
      "SHOW FULL TABLES FROM a LIKE 'b\\_c'",
      'SHOW CREATE TABLE a.`b c`',
      'show columns from "limit"',
    ]) {
      expect(singleStatement(sql)).toBe(sql);
    }
    for (const sql of [
      'SHOW TABLES WHERE 1',
      'SHOW TABLES LIMIT f(1)',
      'SHOW TABLES/**/WHERE 1',
      "SHOW TABLES LIKE '\\' x '",
    ]) {
      expect(() => singleStatement(sql), sql).toThrow(/SHOW takes/);
    }
    const long = `SHOW ${'a '.repeat(100_000)}(`;
    const began = performance.now();
    expect(() => singleStatement(long)).toThrow();
    expect(performance.now() - began).toBeLessThan(1_000);
  });
});

describe('a parsed statement', () => {
  it('may read tables of Sluice, and what describes them', () => {
    check(select('TableIdentifier postgres_main_accounts', 'Function count (children 1)'));
    check(select('TableIdentifier sluice._batches (alias b)'));
    check(select('TableIdentifier system.tables'));
    check(select('Function numbers (children 1)'));
    check('ShowTables');
    check('DescribeQuery (children 1)\n TableExpression (children 1)\n  TableIdentifier t');
    check('ShowCreateTableQuery  t (children 1)\n Identifier t');
    check('Explain EXPLAIN (children 1)\n SelectWithUnionQuery (children 1)\n  ExpressionList (children 1)');
  });

  it('may not reach files, other servers, other databases, or what is unknown', () => {
    for (const line of [
      'Function file (children 1)',
      'Function FILE (alias x) (children 1)',
      'Function url (children 1)',
      'Function viewExplain (children 3)',
      'Function dictGet (children 1)',
      'Function sleepEachRow (children 1)',
      'TableIdentifier other.secrets',
      'TableIdentifier system.query_log',
      'TableIdentifier system.users (alias t)',
    ]) {
      expect(() => check(select(line)), line).toThrow();
    }
    const membership = ['Function in (children 1)', ' ExpressionList (children 2)', '  Identifier x'];
    check(select(...membership, '  Identifier list'));
    expect(() => check(select(...membership, '  Identifier other.secrets'))).toThrow();
  });

  it('may not write, change settings or name its output', () => {
    for (const tree of [
      'InsertQuery   (children 1)\n Identifier x',
      'KillQueryQuery Literal_UInt64_1 ASYNC (children 1)\n Literal UInt64_1',
      "SelectWithUnionQuery (children 2)\n ExpressionList (children 1)\n Literal \\'/tmp/x\\'",
      'SelectWithUnionQuery (children 2)\n ExpressionList (children 1)\n Identifier JSON',
      select('Set'),
      "ShowTables (children 1)\n Literal \\'/tmp/x\\'",
      'DescribeQuery (children 2)\n TableExpression (children 1)\n  TableIdentifier t\n Literal x',
      'Explain EXPLAIN PIPELINE (children 2)\n SelectWithUnionQuery (children 1)\n Literal x',
      'Explain EXPLAIN (children 1)\n InsertQuery   (children 1)',
      'ParallelWithQuery 2 SelectWithUnionQuery (children 2)\n SelectWithUnionQuery (children 1)',
      'ShowCreateTableQuery other t (children 2)\n Identifier other\n Identifier t',
      'ShowGrantsQuery',
      '',
    ]) {
      expect(() => check(tree), tree).toThrow();
    }
  });

  it('may not apply what its tree does not name', () => {
    check(select('ColumnsExceptTransformer', 'ColumnsReplaceTransformer (children 1)'));
    expect(() => check(select('ColumnsApplyTransformer'))).toThrow(/APPLY/);
  });

  it('cannot hide a line behind a forged one', () => {
    const alias = ['Literal UInt64_1 (alias a', 'SelectWithUnionQuery (children 1))', 'Function file (children 1)'];
    expect(() => check(select(...alias))).toThrow();
  });
});

describe('the tables of a statement', () => {
  it('are all that it names, also behind IN', () => {
    const tree = select(
      'TablesInSelectQuery (children 1)',
      ' TableExpression (children 1)',
      '  TableIdentifier sluice.shop_orders (alias o)',
      'Function in (children 1)',
      ' ExpressionList (children 2)',
      '  Identifier account',
      '  Identifier sluice.shop_accounts',
      'Function notIn (children 1)',
      ' ExpressionList (children 2)',
      '  Identifier a.b',
      '  Literal Tuple_(1, 2)',
      'TableIdentifier sluice.shop_orders',
    );
    expect(tablesRead(tree)).toEqual(['sluice.shop_orders', 'sluice.shop_accounts']);
    expect(tablesRead(select('Function count'))).toEqual([]);
  });
});
