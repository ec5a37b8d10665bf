/** Rows of the demo's tables: realistic for the most part, awkward now and then. Pure: all chance comes from `random`. */

import type { Random } from './random.ts';
import { type AccountKind, accountKinds, type TransactionStatus } from './tables.ts';

export interface CurrencyRow {
  code: string;
  name: string;
  numeric_code: number;
  minor_units: number | null;
  symbol: string | null;
  /** Decimals are text: exact, whatever their size. */
  rate_to_eur: string;
  spread: number | null;
  active: boolean;
  countries: string[];
  updated_at: string;
}

export interface AccountRow {
  external_id: string;
  holder: string;
  email: string | null;
  iban: string;
  kind: AccountKind;
  currency: string;
  balance: string;
  credit_limit: string | null;
  risk_score: number | null;
  frozen: boolean;
  tags: (string | null)[];
  limits: unknown;
  password_hash: string | null;
  fingerprint: string | null;
  opened_on: string;
  notes: string | null;
  created_at: string;
  updated_at: string;
}

export interface TransactionRow {
  reference: string;
  account_id: number;
  counterparty_id: number | null;
  amount: string;
  fee: string | null;
  currency: string;
  status: TransactionStatus;
  description: string | null;
  details: unknown;
  labels: (string | null)[] | null;
  signature: string | null;
  exchange_rate: number | null;
  origin: string | null;
  settles_in: string | null;
  value_date: string;
  booked_at: string | null;
  memo: string | null;
  created_at: string;
  updated_at: string;
}

const currencyList = (
  'EUR:Euro:€:2:DE,FR,IT USD:US dollar:$:2:US GBP:Pound sterling:£:2:GB JPY:Yen:¥:0:JP CHF:Swiss franc:Fr.:2:CH,LI ' +
  'SEK:Krona:kr:2:SE NOK:Norwegian krone:kr:2:NO DKK:Danish krone:kr:2:DK PLN:Złoty:zł:2:PL CZK:Koruna:Kč:2:CZ ' +
  'HUF:Forint:Ft:2:HU RON:Leu:lei:2:RO BGN:Lev:лв:2:BG TRY:Lira:₺:2:TR ILS:Shekel:₪:2:IL AED:Dirham:د.إ:2:AE ' +
  'KWD:Kuwaiti dinar:د.ك:3:KW BHD:Bahraini dinar:.د.ب:3:BH INR:Rupee:₹:2:IN CNY:Renminbi:¥:2:CN HKD:HK dollar:$:2:HK ' +
  'SGD:Singapore dollar:$:2:SG KRW:Won:₩:0:KR THB:Baht:฿:2:TH AUD:Australian dollar:$:2:AU NZD:NZ dollar:$:2:NZ ' +
  'CAD:Canadian dollar:$:2:CA MXN:Mexican peso:$:2:MX BRL:Real:R$:2:BR ZAR:Rand:R:2:ZA'
)
  // A space stands before each code, and inside names too: cut only where a code follows.
  .split(/ (?=[A-Z]{3}:)/)
  .map((text) => text.split(':') as [string, string, string, string, string]);

export const currencyCodes: readonly string[] = currencyList.map(([code]) => code);

const givenNames = ['Ana', 'Björn', 'Chloé', 'Dmitri', 'Eşref', 'Fatima', 'Grace', 'Hiroshi', 'Íñigo', 'Zoë', '美咲'];
const familyNames = [
  'Okafor',
  'García',
  'Müller',
  "O'Brien",
  'Novák',
  'Rossi',
  'Smith',
  'van den Berg',
  'Łukasz',
  '田中',
];
const purposes = ['Rent', 'Invoice', 'Salary', 'Groceries', 'Refund', 'Subscription', 'Card payment', 'Standing order'];
const tagWords = ['vip', 'retail', 'newsletter', 'kyc:done', 'review', 'a,b', '{braces}', '"quoted"', 'back\\slash'];

/** Values that break careless escaping; none holds U+0000, which PostgreSQL cannot store. */
const awkwardTexts = [
  '',
  'tab\tand\ttab',
  'two\nlines',
  'carriage\r\nreturn',
  'back\\slash, \\N, \\t and a trailing \\',
  '\\N',
  'NULL',
  `quotes ' " \` and $$`,
  'emoji 🏦💶👩‍👩‍👧, 日本語, עברית, e\u0301',
  '\u0001\u0008\u000b\u001f\u007f\u0085\u2028\ufeff',
  '   spaces around   ',
  '<script>alert(1)</script>; DROP TABLE accounts;--',
  '{"looks": "like json"}',
  '{}',
  '0x00',
];

/** A long text from which memos are cut: making them letter by letter would cost more than all the rest. */
const prose = (() => {
  const words = [
    ...purposes,
    ...familyNames,
    ...awkwardTexts,
    'the',
    'agreed',
    'amount',
    'was',
    'settled',
    'on',
    'time',
  ];
  let text = '';
  for (let i = 0; text.length < 60_000; i++) text += `${words[(i * 7 + (i >> 3)) % words.length]} `;
  return text;
})();

export function currencyRows(random: Random, now: number): CurrencyRow[] {
  return currencyList.map(([code, name, symbol, minorUnits, countries], index) => ({
    code,
    name,
    numeric_code: 36 + index * 31,
    minor_units: code === 'EUR' ? null : Number(minorUnits),
    symbol: random.chance(0.1) ? null : symbol,
    rate_to_eur: rate(random),
    spread: random.chance(0.2) ? null : random.next(),
    active: code !== 'BGN',
    countries: countries.split(','),
    updated_at: timestamp(random, now),
  }));
}

export function accountRow(random: Random, now: number): AccountRow {
  const holder = `${random.pick(givenNames)} ${random.pick(familyNames)}`;
  const created = timestamp(random, now);
  return {
    external_id: uuid(random),
    holder: random.chance(0.02) ? random.pick(awkwardTexts) : holder,
    email: email(random),
    iban: `GB${random.between(10, 99)}SLUI${random.between(10_000_000, 99_999_999)}`,
    kind: random.pick(accountKinds),
    currency: random.pick(currencyCodes),
    balance: decimal(random, -50_000, 5_000_000),
    credit_limit: random.chance(0.4) ? null : `${random.between(0, 50)}000`,
    risk_score: random.chance(0.1) ? null : random.next() * 10 ** random.between(-12, 3),
    frozen: random.chance(0.03),
    tags: tags(random),
    limits: limits(random),
    password_hash: random.chance(0.05) ? null : `$argon2id$${random.hex(16)}`,
    fingerprint: bytes(random, 20),
    opened_on: date(random, now, 7_000),
    notes: random.chance(0.1) ? longText(random) : random.chance(0.5) ? null : shortText(random),
    created_at: created,
    updated_at: created,
  };
}

export function transactionRow(random: Random, now: number, account: number, counterparty: number): TransactionRow {
  const created = timestamp(random, eventTime(random, now));
  return {
    reference: uuid(random),
    account_id: account,
    counterparty_id: random.chance(0.2) ? null : counterparty,
    amount: amount(random),
    fee: random.chance(0.6) ? null : decimal(random, 0, 30),
    currency: random.pick(currencyCodes),
    status: 'pending',
    description: random.chance(0.05) ? null : shortText(random),
    details: random.chance(0.3) ? null : details(random),
    labels: random.chance(0.5) ? null : tags(random),
    signature: random.chance(0.7) ? null : bytes(random, 32),
    exchange_rate: random.chance(0.5) ? null : random.next() * 2,
    origin: random.chance(0.5)
      ? null
      : `10.${random.between(0, 255)}.${random.between(0, 255)}.${random.between(1, 254)}`,
    settles_in: random.chance(0.8) ? null : `${random.between(0, 3)} days ${random.between(0, 86_399)} seconds`,
    value_date: date(random, now, 3),
    booked_at: null,
    memo: random.chance(0.03) ? longText(random) : random.chance(0.8) ? null : shortText(random),
    created_at: created,
    updated_at: created,
  };
}

/** Amounts are positive: small ones mostly, a huge one now and then. */
function amount(random: Random): string {
  if (random.chance(0.001)) return '99999999999999.9999';
  return decimal(random, 0, random.chance(0.9) ? 500 : 250_000).replace(/^0\.0000$/, '0.0001');
}

/** A decimal with four places between two whole numbers, as text. */
export function decimal(random: Random, from: number, to: number): string {
  const places = String(random.between(0, 9999)).padStart(4, '0');
  return `${random.between(from, to - 1)}.${places}`;
}

export function rate(random: Random): string {
  return `${random.between(0, 3)}.${String(random.between(1, 99_999_999)).padStart(8, '0')}`;
}

export function email(random: Random): string | null {
  if (random.chance(0.05)) return random.chance(0.5) ? null : '';
  return `user${random.between(1, 999_999)}@${random.pick(['example.com', 'example.org', 'bücher.example'])}`;
}

export function tags(random: Random): (string | null)[] {
  const some: (string | null)[] = [];
  for (let left = random.between(0, 3); left > 0; left--) some.push(random.pick(tagWords));
  if (random.chance(0.03)) some.push(random.pick([null, '', 'NULL', 'with\nline', 'tab\t', ...awkwardTexts]));
  return some;
}

export function limits(random: Random): unknown {
  return {
    daily: random.between(1, 100) * 100,
    per_card: { atm: random.between(1, 20) * 50, online: random.chance(0.5) },
    note: random.chance(0.05) ? random.pick(awkwardTexts) : null,
  };
}

function details(random: Random): unknown {
  const roll = random.next();
  if (roll < 0.03) return random.pick<unknown>([[], {}, '', 0, false, 'text alone', [null, [1, [2]]]]);
  return {
    channel: random.pick(['app', 'branch', 'atm', 'api']),
    device: { os: random.pick(['ios', 'android', 'web']), version: random.between(1, 20) / 10 },
    exact: random.pick([9_007_199_254_740_991, -1, 0.1, 1e-7, 1.5e300]),
    ...(random.chance(0.1) ? { 'kéy with "quotes"': random.pick(awkwardTexts) } : {}),
  };
}

export function shortText(random: Random): string {
  if (random.chance(0.03)) return random.pick(awkwardTexts);
  return `${random.pick(purposes)} ${random.between(1, 99_999)}`;
}

/** 2.5 to 12 thousand characters: too large for its row, so PostgreSQL stores it out of line. */
export function longText(random: Random): string {
  const length = random.between(2_500, 12_000);
  const begin = random.between(0, prose.length - length);
  // A cut may split a surrogate pair; PostgreSQL takes no half of one.
  const part = prose.slice(begin, begin + length).replace(/^[\udc00-\udfff]|[\ud800-\udbff]$/g, '');
  return `${random.hex(8)} ${part}`;
}

function bytes(random: Random, most: number): string {
  return `\\x${random.hex(random.between(0, most))}`;
}

function uuid(random: Random): string {
  const hex = random.hex(16);
  const variant = '89ab'[random.between(0, 3)];
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`;
}

/** Most things happen now, some arrive late. */
function eventTime(random: Random, now: number): number {
  if (random.chance(0.95)) return now;
  return now - random.between(0, random.chance(0.9) ? 60_000 : 300_000);
}

/** An instant with microseconds. */
export function timestamp(random: Random, milliseconds: number): string {
  const micros = String(random.between(0, 999)).padStart(3, '0');
  return new Date(milliseconds).toISOString().replace('Z', `${micros}Z`);
}

function date(random: Random, now: number, days: number): string {
  return new Date(now - random.between(0, days) * 86_400_000).toISOString().slice(0, 10);
}
