/** What must be so on the server, for the role and for the slot, before anything can be captured. */
import type { Finding } from '../../../model/source.ts';
import { quoteName, quoteText } from './connection.ts';
import type { Facts } from './preflight_facts.ts';

/** One look at one thing: answers what is wrong with it, or nothing. */
export type Check = (facts: Facts) => Finding[];

const blocking = (code: string, detail: string, remedy: string): Finding[] => [
  { code, blocking: true, detail, remedy },
];
const remark = (code: string, detail: string, remedy: string): Finding[] => [{ code, blocking: false, detail, remedy }];

export const serverVersion: Check = ({ server }) =>
  server.version >= 140_000
    ? []
    : blocking(
        'server_version',
        `PostgreSQL ${server.version_text} is too old: its protocol and catalog lack what a true copy needs`,
        'Upgrade the server to PostgreSQL 14 or later.',
      );

export const keepsThroughFailover: Check = ({ server, options }) =>
  !options.failover || server.version >= 170_000
    ? []
    : blocking(
        'failover_version',
        `options.failover is true, and PostgreSQL ${server.version_text} keeps no slot through a failover`,
        'Upgrade the server to PostgreSQL 17 or later, or leave options.failover out: after a failover, re-sync the source.',
      );

export const notStandby: Check = ({ server }) =>
  server.standby
    ? blocking(
        'standby',
        'the server is a standby: publications and event triggers cannot be made there',
        'Connect to the primary server.',
      )
    : [];

export const walLevel: Check = ({ server }) =>
  server.wal_level === 'logical'
    ? []
    : blocking(
        'wal_level',
        `wal_level is ${server.wal_level}: the log does not hold what changes were made to rows`,
        "Run ALTER SYSTEM SET wal_level = 'logical'; as superuser and restart the server " +
          '(Amazon RDS: set rds.logical_replication = 1 and reboot; Cloud SQL: set the flag cloudsql.logical_decoding = on).',
      );

export const readWrite: Check = ({ server }) =>
  server.read_only
    ? blocking(
        'read_only',
        'sessions of this role are read-only by default, so it cannot make a publication',
        `Run ALTER ROLE ${quoteName(server.role)} SET default_transaction_read_only = off;`,
      )
    : [];

export const blockSize: Check = ({ server }) =>
  server.block_size <= 8192
    ? []
    : blocking(
        'block_size',
        `the server was built with blocks of ${server.block_size} bytes: one log record can hold more rows than a version can number`,
        'Use a server built with the usual block size of 8192 bytes.',
      );

export const encoding: Check = ({ server }) =>
  server.convertible
    ? []
    : blocking(
        'encoding',
        `the database's encoding is ${server.encoding}: its text cannot be turned into UTF-8 without guessing`,
        `Dump the database and restore it into one made with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0.`,
      );

export const mayReplicate: Check = ({ server }) =>
  server.may_replicate
    ? []
    : blocking(
        'replication_privilege',
        `the role ${server.role} may not read the log`,
        `Run ALTER ROLE ${quoteName(server.role)} REPLICATION; as superuser (Amazon RDS: GRANT rds_replication TO ${quoteName(server.role)};).`,
      );

export const freeSlot: Check = ({ server, slot }) =>
  slot || server.slots < server.max_replication_slots
    ? []
    : blocking(
        'no_free_slot',
        `all ${server.max_replication_slots} replication slots are taken`,
        'Drop one that nobody needs (SELECT slot_name, active FROM pg_replication_slots; then ' +
          `SELECT pg_drop_replication_slot('…');), or run ALTER SYSTEM SET max_replication_slots = ${server.slots + 5}; and restart the server.`,
      );

export const freeWalsender: Check = ({ server, slot }) =>
  slot?.active || server.walsenders < server.max_wal_senders
    ? []
    : blocking(
        'no_free_walsender',
        `all ${server.max_wal_senders} walsenders are busy`,
        `Run ALTER SYSTEM SET max_wal_senders = ${server.walsenders + 5}; and restart the server.`,
      );

export const slotUsable: Check = ({ server, slot, options }) => {
  if (!slot) return [];
  const drop = `SELECT pg_drop_replication_slot(${quoteText(options.slot)});`;
  const wrong =
    slot.slot_type !== 'logical' || slot.plugin !== 'pgoutput' || slot.database !== server.database || slot.temporary;
  if (wrong)
    return blocking(
      'slot_foreign',
      `the slot ${options.slot} exists and is another's: ${slot.slot_type}, ${slot.plugin ?? 'no plugin'}, database ${slot.database ?? 'none'}`,
      `Set options.slot to another name, or run ${drop} if nobody needs it.`,
    );
  if (slot.wal_status === 'lost' || slot.invalidation_reason)
    return blocking(
      'slot_lost',
      `the slot ${options.slot} was invalidated (${slot.invalidation_reason ?? 'its log was removed'}): changes are missing from it`,
      `Run ${drop} and connect again: the tables are then copied anew.`,
    );
  return [];
};

export const keptLog: Check = ({ server }) =>
  server.max_slot_wal_keep_size < 0
    ? remark(
        'unbounded_log',
        'max_slot_wal_keep_size is -1: while Sluice does not read, the server keeps all log and its disk can fill',
        "Watch sluice_slot_retained_bytes, or run ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
      )
    : remark(
        'bounded_log',
        `max_slot_wal_keep_size is ${server.max_slot_wal_keep_size} MB: a longer pause than this much log loses the slot, and all tables are copied anew`,
        'Keep it well above the log that the longest pause can bring.',
      );

export const idleSlot: Check = ({ server }) =>
  server.idle_replication_slot_timeout === '0'
    ? []
    : remark(
        'idle_slot_timeout',
        `idle_replication_slot_timeout is ${server.idle_replication_slot_timeout}: a longer pause loses the slot, and all tables are copied anew`,
        'Run ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();',
      );

export const durable: Check = ({ server }) =>
  server.fsync
    ? []
    : remark(
        'fsync_off',
        'fsync is off: after a crash the source may have forgotten changes that the copy has',
        'Run ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf(); and resync after any crash that came before.',
      );
