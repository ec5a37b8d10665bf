/** The examples of configuration that people were given, to the letter: each loads as the file that it stands for. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readConfig } from './config.ts';
import { readDeployments } from './deployment_files.ts';

const examples = `# cdc.yaml
sources:
  - id: postgres_main
    type: postgresql            # postgresql | mysql | mariadb | mongodb | debezium
    connection_string: \${DATABASE_URL}
    poll_interval: 1            # seconds a batch may wait before it is written, fractions allowed
    tables: [accounts, transactions]      # names, schema.name, or globs
    mode: copy                  # copy | log | both
    exclude_columns: { accounts: [password_hash] }
    options: {}                 # by type: publication, slot, topics, bootstrap_servers, topic_prefix …
# transformations.yaml
rules:
  - rule_id: mask_email
    name: Mask email addresses
    rule_type: map              # map | filter | aggregate | join | custom
    assets: ["postgres_main_*"] # optional; else every asset that has all source_fields
    source_fields: [email]
    target_field: masked_email
    target_type: String         # optional ClickHouse type; else inferred
    expression: '{{ email.split("@")[0][:3] }}***@{{ email.split("@")[1] }}'
    on_error: reject            # reject | null | stop
    parameters: {}              # aggregate: {type: sum|avg|min|max|count}; join: {asset, on: {field: key}, fields: […]}; custom: {function: name}
# quality.yaml
rules:
  - { rule_id: amount_positive, asset: postgres_main_transactions, field: amount, rule_type: range,
      parameters: { min: 0 }, severity: reject }   # severity: warn | reject | stop
# rule_type: not_null | type | range | pattern | length | accepted_values | unique | relationships | row_count | freshness | expression
# analytics.yaml
windows:
  - { id: tx_by_currency, asset: postgres_main_transactions, event_time: created_at, type: tumbling, size: 1m,   # tumbling | hopping(slide) | session(gap)
      group_by: [currency], aggregates: { total: sum(amount), n: count() }, watermark_delay: 10s, allowed_lateness: 2m,
      emit: [clickhouse, "kafka:tx_by_currency", slack], alert: "{{ total > 1000000 }}" }
# connectors.yaml
sinks: [ { id: clickhouse, type: clickhouse, url: \${CLICKHOUSE_URL}, database: sluice } ]
`;

const deployment = `name: assets
flow: extractAssets
schedule: { interval: 15m }     # or { cron: "0 */6 * * *", timezone: UTC }; [] or absent = only by hand
parameters: { api_url: "\${ASSET_API_URL}", page_size: 500 }
tags: [assets]
task_queue: sluice
overlap: buffer_all             # skip | buffer_one | buffer_all | cancel_other | allow_all
catchup_window: 1h
paused: false
`;

/** Text of each file, by its name. */
const files = new Map(
  examples
    .split(/^# (?=\w+\.yaml$)/m)
    .slice(1)
    .map((part) => [part.slice(0, part.indexOf('\n')), part.slice(part.indexOf('\n') + 1)] as const),
);
const environment = { CLICKHOUSE_URL: 'http://me:hunter2@ch:8123' };
const home = mkdtempSync(path.join(tmpdir(), 'sluice-examples-'));
afterAll(() => rmSync(home, { recursive: true }));

function folderOf(texts: Iterable<readonly [string, string]>): string {
  const folder = mkdtempSync(path.join(home, 'config-'));
  for (const [name, text] of texts) writeFileSync(path.join(folder, name), text);
  return folder;
}

describe('the examples', () => {
  it('are read whole, all but windows, which nothing computes yet', () => {
    expect([...files.keys()]).toHaveLength(5);
    const config = readConfig(folderOf([...files].filter(([name]) => name !== 'analytics.yaml')), environment);
    expect(config.sources).toEqual([
      {
        id: 'postgres_main',
        type: 'postgresql',
        connection_string: '${DATABASE_URL}',
        poll_interval: 1,
        tables: ['accounts', 'transactions'],
        mode: 'copy',
        exclude_columns: { accounts: ['password_hash'] },
        options: {},
        start: true,
      },
    ]);
    expect(config.transformations).toMatchObject([{ rule_id: 'mask_email', on_error: 'reject' }]);
    expect(config.quality).toMatchObject([{ rule_id: 'amount_positive', parameters: { min: 0 }, severity: 'reject' }]);
    expect(() => readConfig(folderOf(files), environment)).toThrow(/windows are not computed yet/);
  });

  it.each([...files.keys()].filter((name) => name !== 'analytics.yaml'))('%s is right by itself', (name) => {
    expect(() => readConfig(folderOf([[name, files.get(name)!]]), environment)).not.toThrow();
  });

  it('of a deployment keeps its references', () => {
    const [read] = readDeployments(folderOf([['assets.yaml', deployment]]), environment);
    expect(read?.deployment).toMatchObject({
      name: 'assets',
      schedule: [{ interval: '15m' }],
      parameters: { api_url: '${ASSET_API_URL}', page_size: 500 },
      paused: false,
    });
  });
});

describe('${NAME} without quotes', () => {
  const sinks = (entries: string) => folderOf([['connectors.yaml', entries]]);
  const place = (folder: string) => {
    try {
      readConfig(folder, environment);
    } catch (error) {
      const { message, place } = error as Error & { place: { line: number } };
      return `${place.line} ${message}`;
    }
    throw new Error('no mistake was found');
  };

  it('stands in lists and maps, beside quotes, comments and other text', () => {
    const cdc =
      'sources: [{ id: shop, type: postgresql, connection_string: ${DATABASE_URL}, tables: [a_${X}, "${X}"] }]\n';
    const folder = folderOf([['cdc.yaml', `# \${NOT_SET} "\n${cdc}`]]);
    expect(readConfig(folder, { X: 'it: "s, }' }).sources[0]).toMatchObject({
      connection_string: '${DATABASE_URL}',
      tables: ['a_it: "s, }', 'it: "s, }'],
    });
  });

  it('is told at its line when it is not set, and a value is never read as YAML', () => {
    expect(place(sinks('sinks: [\n  # ${NOPE}\n  { id: here, type: clickhouse, url: ${NOPE} } ]\n'))).toBe(
      '3 the environment variable NOPE is not set',
    );
    expect(place(sinks('sinks:\n  - { id: here, url: ${CLICKHOUSE_URL}: }\n'))).not.toContain('hunter2');
    expect(place(sinks('sinks: [ { "${A}: 1 } ]\n'))).not.toMatch(/[\ufdd0-\ufdd2]/);
  });
});
