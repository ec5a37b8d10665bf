import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { SluiceError } from '../model/errors.ts';
import { nearest } from '../model/nearest_word.ts';
import { readConfig } from './config.ts';
import { projectFolder } from './settings.ts';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function read(files: Record<string, string>, environment: NodeJS.ProcessEnv = {}) {
  const folder = mkdtempSync(path.join(tmpdir(), 'sluice-config-'));
  folders.push(folder);
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
  return readConfig(folder, environment);
}

/** `file:line reason | remedy` of what reading throws. */
function mistakeIn(files: Record<string, string>, environment?: NodeJS.ProcessEnv): string {
  try {
    read(files, environment);
  } catch (error) {
    const { kind, message, place, remedy } = error as SluiceError;
    expect(kind).toBe('configuration');
    return `${path.basename(place.file ?? '')}:${place.line} ${message} | ${remedy}`;
  }
  throw new Error('no mistake was found');
}

const source = `sources:
  - id: shop
    type: postgresql
    connection_string: \${DATABASE_URL}
`;

describe('configuration files', () => {
  it('are optional, and have defaults', () => {
    expect(read({})).toEqual({
      sources: [],
      transformations: undefined,
      quality: undefined,
      places: new Map(),
    });
    const config = read({
      'cdc.yaml': `${source}    tables: [orders, sales.*]\n    exclude_columns: { orders: [note] }\n`,
    });
    expect(config.sources).toEqual([
      {
        id: 'shop',
        type: 'postgresql',
        connection_string: '${DATABASE_URL}',
        tables: ['orders', 'sales.*'],
        poll_interval: 1,
        mode: 'copy',
        exclude_columns: { orders: ['note'] },
        options: {},
        start: true,
      },
    ]);
  });

  it('in the project are right', () => {
    const config = readConfig(path.join(projectFolder, 'config'), { CLICKHOUSE_URL: 'http://127.0.0.1:8123' });
    expect(config.sources.map((one) => one.id)).toEqual(['postgres_main']);
    const own = { CLICKHOUSE_URL: 'https://me:secret@ch.example.org', CLICKHOUSE_DATABASE: 'mine' };
    expect(readConfig(path.join(projectFolder, 'config'), own).sources).toHaveLength(1);
  });

  it('with unknown keys are refused: where, what is allowed, what was meant', () => {
    expect(mistakeIn({ 'cdc.yaml': `${source}    pol_interval: 2\n` })).toBe(
      'cdc.yaml:5 unknown key pol_interval at sources.0 | Did you mean poll_interval? Allowed are id, type, ' +
        'connection_string, tables, poll_interval, mode, exclude_columns, options, start.',
    );
    expect(mistakeIn({ 'cdc.yaml': `${source}    options:\n      slots: a\n` })).toMatch(
      /^cdc\.yaml:6 unknown key slots at sources\.0\.options \| Did you mean slot\? /,
    );
    expect(mistakeIn({ 'cdc.yaml': source.replace('type:', 'typ:') })).toMatch(
      /^cdc\.yaml:3 unknown key typ at sources\.0 \| Did you mean type\? Allowed are /,
    );
    // What is missing is told where no other key can be meant, and where the other key is another source's.
    expect(mistakeIn({ 'cdc.yaml': source.replace('    type: postgresql\n', '') })).toMatch(
      /^cdc\.yaml:2 .*sources\.0\.type/,
    );
    const twice = `${source.replace('    type: postgresql\n', '')}  - { id: b, typ: postgresql, connection_string: "\${X}" }\n`;
    expect(mistakeIn({ 'cdc.yaml': twice })).toMatch(/^cdc\.yaml:2 .*sources\.0\.type/);
    expect(mistakeIn({ 'transformations.yaml': 'rules:\n  - rule_id: a\n    rule_typ: map\n' })).toMatch(
      /^transformations\.yaml:3 rules\.0\.rule_typ: unknown key/,
    );
    expect(mistakeIn({ 'cdc.yaml': 'quelle: []\n' })).toBe('cdc.yaml:1 unknown key quelle | Allowed are sources.');
  });

  it('with bad values are refused at their line', () => {
    expect(mistakeIn({ 'cdc.yaml': `${source}    poll_interval: often\n` })).toMatch(
      /^cdc\.yaml:5 .*number.*poll_interval/,
    );
    expect(mistakeIn({ 'cdc.yaml': source.replace('postgresql', 'oracle') })).toMatch(
      /^cdc\.yaml:3 .*sources\.0\.type/,
    );
    expect(mistakeIn({ 'cdc.yaml': source.replace('shop', 'Shop') })).toMatch(/^cdc\.yaml:2 an id starts/);
    expect(mistakeIn({ 'cdc.yaml': 'sources:\n  - id: shop\n    type: postgresql\n' })).toMatch(
      /^cdc\.yaml:2 .*connection_string/,
    );
    expect(mistakeIn({ 'cdc.yaml': `${source}    tables: [a, b\n` })).toMatch(/^cdc\.yaml:[56] /);
    expect(mistakeIn({ 'cdc.yaml': `${source}    mode: copy\n    mode: log\n` })).toMatch(/^cdc\.yaml:6 .*unique/);
    expect(mistakeIn({ 'cdc.yaml': source + source.replace('sources:\n', '') })).toMatch(
      /two sources have the id shop/,
    );
  });

  const rule = 'rules:\n  - rule_id: mask\n    rule_type: map\n    target_field: m\n    expression: "{{ email }}"\n';
  const check = 'rules:\n  - { rule_id: there, asset: a, field: b, rule_type: not_null }\n';

  it('of rules and checks are read, and mistakes told where they stand', () => {
    const config = read({ 'transformations.yaml': rule.replace('email }}', 'email }}${X}'), 'quality.yaml': check });
    expect(config.transformations).toEqual([
      { rule_id: 'mask', rule_type: 'map', target_field: 'm', expression: '{{ email }}${X}' },
    ]);
    expect(config.quality).toEqual([
      { rule_id: 'there', asset: 'a', field: 'b', rule_type: 'not_null', parameters: {}, severity: 'warn' },
    ]);
    expect(config.places.get('mask')).toMatchObject({ line: 2 });
    expect(mistakeIn({ 'transformations.yaml': `${rule}    on_eror: stop\n` })).toMatch(
      /^transformations\.yaml:6 rules\.0\.on_eror: unknown key; known are rule_id, .*on_error/,
    );
    expect(mistakeIn({ 'transformations.yaml': rule.replace('map', 'mop') })).toMatch(
      /^transformations\.yaml:3 rules\.0\.rule_type: must be one of map, filter/,
    );
    expect(mistakeIn({ 'quality.yaml': check.replace('not_null', 'range, parameters: { mn: 1 }') })).toMatch(
      /^quality\.yaml:2 rules\.0\.parameters\.mn: unknown key; known are min, max/,
    );
    expect(mistakeIn({ 'quality.yaml': 'checks: []\n' })).toMatch(/^quality\.yaml:1 unknown key checks/);
    expect(mistakeIn({ 'transformations.yaml': rule, 'quality.yaml': check.replace('there', 'mask') })).toMatch(
      /^quality\.yaml:2 mask is the id of two rules or checks \| .*transformations\.yaml:2/,
    );
  });

  it('never show a connection string that is wrong', () => {
    const text = source.replace('${DATABASE_URL}', 'mysql://user:hunter2@host/db');
    const told = mistakeIn({ 'cdc.yaml': text });
    expect(told).toMatch(/^cdc\.yaml:4 write postgresql:/);
    expect(told).not.toContain('hunter2');
  });

  const sinks = 'sinks:\n  - id: here\n    type: clickhouse\n    url: ${CLICKHOUSE_URL}\n';

  it('take values from the environment, but leave connection strings as references', () => {
    const config = read(
      { 'cdc.yaml': source, 'connectors.yaml': `${sinks}    database: sluice\n` },
      { CLICKHOUSE_URL: 'http://ch:8123', DATABASE_URL: 'secret' },
    );
    expect(config.sources[0]?.connection_string).toBe('${DATABASE_URL}');
    expect(mistakeIn({ 'connectors.yaml': sinks })).toMatch(
      /^connectors\.yaml:4 the environment variable CLICKHOUSE_URL is not set \| Set CLICKHOUSE_URL/,
    );
  });

  it('name no other sink than the one in use', () => {
    const environment = { CLICKHOUSE_URL: 'http://me:hunter2@ch:8123/', CLICKHOUSE_DATABASE: 'mine' };
    const sink = (url: string, database = '') => ({
      'connectors.yaml': `sinks:\n  - id: here\n    type: clickhouse\n    url: ${url}\n${database}`,
    });
    for (const url of ['${CLICKHOUSE_URL}', 'http://CH:8123', 'http://me:hunter2@ch:8123'])
      expect(read(sink(url, '    database: mine\n'), environment).sources).toEqual([]);
    expect(mistakeIn(sink('${CLICKHOUSE_URL}', '    database: other\n'), environment)).toBe(
      'connectors.yaml:5 the sink here is the database other, and copies are written to mine at http://***@ch:8123/ | ' +
        'Set CLICKHOUSE_DATABASE=other for all parts, or correct the file: there is one sink.',
    );
    const elsewhere = mistakeIn(sink('http://u:secret@elsewhere:8123'), environment);
    expect(elsewhere).toBe(
      'connectors.yaml:4 the sink here is http://***@elsewhere:8123/, and copies are written to mine at http://***@ch:8123/ | ' +
        'Set CLICKHOUSE_URL to it for all parts, or correct the file: there is one sink.',
    );
    expect(mistakeIn(sink('http://other:pw@ch:8123'), environment)).toMatch(/^connectors\.yaml:4 /);
    expect(mistakeIn({ ...sink('http://127.0.0.1:8123', '    database: other\n') })).toMatch(/^connectors\.yaml:5 /);
  });

  it('declare no windows, which nothing computes', () => {
    expect(read({ 'analytics.yaml': 'windows: []\n' }).sources).toEqual([]);
    const windows = '# sums\nwindows:\n  - { id: tx_by_currency, size: 1m }\n';
    expect(mistakeIn({ 'analytics.yaml': windows })).toMatch(/^analytics\.yaml:3 windows are not computed yet \| /);
    expect(mistakeIn({ 'analytics.yaml': 'window: []\n' })).toMatch(/^analytics\.yaml:1 unknown key window/);
  });
});

describe('the nearest word', () => {
  it('is one that few letters make of what was written', () => {
    expect(nearest('tabels', ['tables', 'type'])).toBe('tables');
    expect(nearest('Mode', ['mode', 'id'])).toBe('mode');
    expect(nearest('password', ['tables', 'mode'])).toBeUndefined();
  });
});
