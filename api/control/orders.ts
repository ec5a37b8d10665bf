/** Orders that bear a key: a key stands for one order, and some answers are kept for it. */
import { createHmac } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClickHouse } from '../../activities/load/clickhouse.ts';
import { createOrders, type Order, readOrder, writeOrder } from '../../activities/load/orders.ts';
import { ShapeError } from '../../model/shape_error.ts';
import type { Control } from './control.ts';
import { noTableYet } from './figures.ts';
import { ownTables } from './own_tables.ts';

/** An order is not kept waiting longer than this (ms), nor refused, because ClickHouse is away: it is not compared then. */
const patience = 2_000;

/** Throws ShapeError where the key came with another order before. `order`: all that makes it this one, secrets too. */
export async function claimKey(control: Control, key: string, order: string): Promise<void> {
  // A digest without a secret could be guessed from, where a password is in the order.
  const digest = createHmac('sha256', control.settings.secretKey ?? '')
    .update(order)
    .digest('hex');
  const claim = firstOf(control, key, digest).catch(() => undefined);
  const first = await Promise.race([claim, sleep(patience, undefined, { ref: false })]);
  if (first === undefined || first.digest === digest) return;
  const issue = { pointer: '/idempotency-key', detail: 'was sent with another order before' };
  throw new ShapeError('the key stands for another order', [issue], 'Take a new key for each order.');
}

async function firstOf(control: Control, key: string, digest: string): Promise<Order | undefined> {
  const earlier = await orderOf(control, key);
  if (earlier) return earlier;
  await keep(control, (clickhouse) => writeOrder(clickhouse, key, { digest, answer: '' }));
  return await orderOf(control, key);
}

/** Does what nothing else does once for each key: sent again, it is answered as the first time. */
export async function answeredOnce<Answer>(control: Control, work: () => Promise<Answer>): Promise<Answer> {
  const { idempotencyKey: key } = control;
  if (key === undefined) return await work();
  const earlier = await orderOf(control, key);
  if (earlier?.answer) return JSON.parse(earlier.answer) as Answer;
  const answer = await work();
  // Nothing is kept for what could not be compared.
  if (earlier) {
    const order = { ...earlier, answer: JSON.stringify(answer) };
    await keep(control, (clickhouse) => writeOrder(clickhouse, key, order)).catch(() => {});
  }
  return answer;
}

async function orderOf({ clickhouse }: Control, key: string): Promise<Order | undefined> {
  return await readOrder(clickhouse, key).catch((error: unknown) => {
    if (noTableYet(error)) return undefined;
    throw error;
  });
}

async function keep(control: Control, write: (clickhouse: ClickHouse) => Promise<void>): Promise<void> {
  await ownTables(control, async (clickhouse) => {
    await write(clickhouse).catch(async (error: unknown) => {
      if (!noTableYet(error)) throw error;
      await createOrders(clickhouse);
      await write(clickhouse);
    });
  });
}
