/** Numbers of checks among those that a column of ClickHouse can hold: compared there as its own type, nothing overflows. */
import { type ClickhouseType, parseClickhouseType } from '../transform/clickhouse_types.ts';
import { Decimal, decimalText } from '../transform/jinja/decimal.ts';

/** What a column of whole numbers or decimals holds, counted in units of its last digit. */
interface Held {
  lowest: bigint;
  highest: bigint;
  scale: number;
}

/** A number among those of a column: its neighbours there, which are the same for one that the column can hold. */
export interface HeldNumber {
  /** The largest that is not above it; `none` where it is below all. */
  below: string | 'none';
  /** The smallest that is not below it; `none` where it is above all. */
  above: string | 'none';
}

/** Finds a number's place among those of a type without Nullable: Int…, UInt… or Decimal(p, s). */
export function heldNumber(clickhouse: string, number: Decimal): HeldNumber {
  const held = heldIn(parseClickhouseType(clickhouse).type);
  const [floor, ceiling] = neighbours(number, held.scale);
  const text = (units: bigint) => decimalText(new Decimal(clamped(units, held), held.scale));
  return {
    below: floor < held.lowest ? 'none' : text(floor),
    above: ceiling > held.highest ? 'none' : text(ceiling),
  };
}

function clamped(units: bigint, { lowest, highest }: Held): bigint {
  if (units < lowest) return lowest;
  return units > highest ? highest : units;
}

function heldIn(type: ClickhouseType): Held {
  if (type.name === 'Int') {
    const count = 1n << BigInt(type.bits);
    return type.signed
      ? { lowest: -count / 2n, highest: count / 2n - 1n, scale: 0 }
      : { lowest: 0n, highest: count - 1n, scale: 0 };
  }
  const { precision, scale } = type as Extract<ClickhouseType, { name: 'Decimal' }>;
  const highest = 10n ** BigInt(precision) - 1n;
  return { lowest: -highest, highest, scale };
}

/** Whole units next to a number, below and above. */
function neighbours({ coefficient, scale }: Decimal, wanted: number): [bigint, bigint] {
  const digits = BigInt(coefficient);
  if (scale <= wanted) {
    const units = digits * 10n ** BigInt(wanted - scale);
    return [units, units];
  }
  const unit = 10n ** BigInt(scale - wanted);
  const rest = ((digits % unit) + unit) % unit;
  const floor = (digits - rest) / unit;
  return [floor, rest === 0n ? floor : floor + 1n];
}
