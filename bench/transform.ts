/**
 * `sluice bench transform`: how many rows a second an expression does on one core. Each is measured alone, over rows that
 * are decoded already, and on its whole way: from the source's bytes through the expression to the bytes for ClickHouse.
 *
 * Prints JSON. Rates are per second of the processor's time, so that other work on the machine does not count; `wall` is
 * the rate by the clock on the wall.
 */
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { decoderFor } from '../activities/transform/decode.ts';
import { encoderFor } from '../activities/transform/encode.ts';
import { compileExpression, type Expression } from '../activities/transform/expression.ts';
import type { Value } from '../activities/transform/jinja/values.ts';

const usage = 'sluice bench transform [--rows 1000] [--seconds 0.5] [--rounds 3] [--expression "{{ … }}"]';

const columns = [
  { name: 'id', type: 'bigint' },
  { name: 'email', type: 'text' },
  { name: 'name', type: 'text' },
  { name: 'amount', type: 'numeric(12,2)' },
  { name: 'quantity', type: 'integer' },
  { name: 'rate', type: 'double precision' },
  { name: 'active', type: 'boolean' },
  { name: 'created_at', type: 'timestamp with time zone' },
  { name: 'doc', type: 'jsonb' },
] as const;

const expressions = [
  '{{ email.split("@")[0][:3] }}***@{{ email.split("@")[1] }}',
  '{{ name | upper }}',
  '{{ amount * 2 }}',
  '{{ quantity * 2 }}',
  '{{ rate * 2 }}',
  '{{ name }}',
  '{{ amount > 100 and active }}',
  '{{ name | trim | lower | replace("customer", "c") }}',
  '{{ amount / quantity | round(2) }}',
  '{% if amount > 100 %}large{% else %}small{% endif %}',
  '{{ created_at.strftime("%Y-%m") }}',
  '{{ doc.city | default("unknown") }}',
  '{"email": "{{ email }}", "amount": "{{ amount }}"}',
  '{{ "%s-%05d" | format(name, quantity) }}',
  '{{ email | regex_replace("@.*", "") }}',
  '{% for c in name[:5] %}{{ c | upper }}{{ "." if not loop.last }}{% endfor %}',
];

/** Source texts of a row, as PostgreSQL sends them. */
function sourceRow(i: number): string[] {
  const day = String((i % 28) + 1).padStart(2, '0');
  return [
    String(i),
    `user.number${i}@example${i % 7}.com`,
    `Customer ${i}`,
    `${(i * 7919) % 1000}.${String(i % 100).padStart(2, '0')}`,
    String((i % 9) + 1),
    String(i / 3),
    i % 2 === 0 ? 't' : 'f',
    `2024-05-${day} 12:30:45.123456+00`,
    `{"city": "City ${i % 50}", "n": ${i}}`,
  ];
}

interface Rate {
  per_second: number;
  wall: number;
}

/** Runs work of a known number of rows again and again; answers the best of the rounds. */
function measure(rows: number, seconds: number, rounds: number, work: () => void): Rate {
  let best: Rate = { per_second: 0, wall: 0 };
  for (let round = 0; round < rounds; round++) {
    const begun = performance.now();
    const before = process.cpuUsage();
    let done = 0;
    while (performance.now() - begun < seconds * 1000) {
      work();
      done += rows;
    }
    const { user, system } = process.cpuUsage(before);
    const rate = {
      per_second: Math.round((done / (user + system)) * 1e6),
      wall: Math.round((done / (performance.now() - begun)) * 1000),
    };
    if (rate.per_second > best.per_second) best = rate;
  }
  return best;
}

/** Length of all results: something has to look at them, or they need not be made. */
let seen = 0;

function look(value: Value): void {
  seen += typeof value === 'string' ? value.length : 1;
}

/** The whole way of a rule: decode what it uses, evaluate, encode, and write the bytes. */
function wholeWay(expression: Expression, source: readonly Buffer[][]): () => void {
  const { usedColumns } = expression;
  const decoders = usedColumns.map((index) => decoderFor(columns[index]!.type));
  const encode = encoderFor(`Nullable(${expression.inferType()})`);
  const row: Value[] = [];
  const block = Buffer.alloc(64 * 1024);
  return () => {
    let at = 0;
    for (const fields of source) {
      for (let i = 0; i < usedColumns.length; i++) {
        const bytes = fields[usedColumns[i]!]!;
        row[usedColumns[i]!] = decoders[i]!(bytes, 0, bytes.length);
      }
      if (at > block.length - 1024) at = 0;
      at += block.write(encode(expression.evaluate(row)), at, 'utf8');
    }
    seen += at;
  };
}

/** Runs the benchmark; answers the exit code. */
export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      rows: { type: 'string', default: '1000' },
      seconds: { type: 'string', default: '0.5' },
      rounds: { type: 'string', default: '3' },
      expression: { type: 'string', multiple: true },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    return 0;
  }
  const [rows, seconds, rounds] = [Number(values.rows), Number(values.seconds), Number(values.rounds)];
  const source = Array.from({ length: rows }, (_, i) => sourceRow(i).map((text) => Buffer.from(text)));
  const decoders = columns.map(({ type }) => decoderFor(type));
  const decoded = source.map((fields) => fields.map((bytes, i) => decoders[i]!(bytes, 0, bytes.length)));
  const results = (values.expression ?? expressions).map((text) => {
    const expression = compileExpression(text, columns);
    const evaluate = () => {
      for (const row of decoded) look(expression.evaluate(row));
    };
    return {
      expression: text,
      evaluations: measure(rows, seconds, rounds, evaluate),
      with_decoding_and_encoding: measure(rows, seconds, rounds, wholeWay(expression, source)),
    };
  });
  console.log(JSON.stringify({ benchmark: 'transform', rows, seconds, rounds, results, looked_at: seen }, null, 2));
  return 0;
}
