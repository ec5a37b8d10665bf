import { expect, it } from 'vitest';
import { keyColumns, type TableSchema } from '../../model/table.ts';
import { keyOf } from './tsv.ts';

it('keyOf has the fields in the order of keyColumns, which is that of the index', () => {
  const column = (attnum: number, name: string, key: boolean) => ({ attnum, name, key });
  const columns = [column(1, 'a', true), column(2, 'v', false), column(3, 'b', true)];
  const keyOfTable = (keyOrder?: number[]) => {
    const table = { columns, ...(keyOrder && { keyOrder }) } as unknown as TableSchema;
    return [keyColumns(table).map(({ name }) => name), keyOf(table, ['1', 'v', '3'])];
  };
  expect(keyOfTable()).toEqual([['a', 'b'], '1\t3']);
  expect(keyOfTable([3, 1])).toEqual([['b', 'a'], '3\t1']);
});
