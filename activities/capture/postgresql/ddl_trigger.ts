/**
 * An event trigger of the source that tells the log when somebody alters a table, where the role may make one: what sends no rows
 * (a column dropped, a partition detached, a table gone) is then looked at as soon as the stream comes to it, and not
 * seconds later. Nothing else rests on it: the catalog is looked at all the same, and without it copies follow too.
 */
import type pg from 'pg';
import { quoteName, quoteText } from './connection.ts';

/** Its name, that of the schema in which its function is, and the prefix of its messages. */
export function ddlTriggerOf(source: string): string {
  return `sluice_${source}`;
}

/** Statements that alter tables, or what decides how the log sends them. */
const altering = ['TABLE', 'INDEX', 'TYPE', 'DOMAIN', 'SCHEMA', 'PUBLICATION'].flatMap((kind) =>
  ['CREATE', 'ALTER'].map((verb) => `${verb} ${kind}`),
);
const dropping = [
  'DROP TABLE',
  'DROP INDEX',
  'DROP TYPE',
  'DROP DOMAIN',
  'DROP SCHEMA',
  'DROP PUBLICATION',
  'DROP OWNED',
];

/** A table that is altered or dropped is told by its oid, which few ask about; all else, that something was, by a star. */
const told = (isTable: string, from: string) =>
  `SELECT pg_catalog.string_agg(DISTINCT CASE WHEN ${isTable} THEN objid::pg_catalog.text ELSE '*' END, ' ') INTO objects FROM ${from}`;

/**
 * Runs with the rights of its owner, whoever alters, and by no names but those of the system. Whatever goes wrong in it, the
 * statement that fired it goes on.
 */
const body = `
DECLARE objects pg_catalog.text;
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    ${told("object_type = 'table'", 'pg_catalog.pg_event_trigger_dropped_objects() WHERE NOT is_temporary AND (original OR normal)')};
  ELSE
    ${told("classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND command_tag = 'ALTER TABLE'", "pg_catalog.pg_event_trigger_ddl_commands() WHERE schema_name IS DISTINCT FROM 'pg_temp'")};
  END IF;
  IF objects IS NOT NULL THEN
    PERFORM pg_catalog.pg_logical_emit_message(true, TG_ARGV_PREFIX, objects);
  END IF;
EXCEPTION WHEN OTHERS THEN
  NULL;
END`;

/** Superusers may, and those that managed services give some of their rights. Asked first, so that no error is in the server's log. */
const mayTry = `SELECT rolsuper OR EXISTS (
    SELECT FROM pg_catalog.pg_roles m WHERE m.rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin', 'supabase_admin')
      AND pg_catalog.pg_has_role(m.oid, 'MEMBER')) AS may
  FROM pg_catalog.pg_roles WHERE rolname = current_user`;

/** Makes the trigger when it is not there and the role may; answers nothing, since nothing rests on it. */
export async function makeDdlTrigger(client: pg.Client, source: string): Promise<void> {
  if (await hasDdlTrigger(client, source)) return;
  const { rows } = await client.query<{ may: boolean }>(mayTry);
  if (!rows[0]?.may) return;
  const name = ddlTriggerOf(source);
  const schema = quoteName(name);
  const tags = (list: string[]) => list.map((tag) => `'${tag}'`).join(', ');
  const trigger = (event: string, list: string[]) =>
    `CREATE EVENT TRIGGER ${quoteName(`${name}_${event}`)} ON ${event} WHEN TAG IN (${tags(list)}) EXECUTE FUNCTION ${schema}.tell_of_ddl();
     ALTER EVENT TRIGGER ${quoteName(`${name}_${event}`)} ENABLE ALWAYS;`;
  // One text is one transaction: all of it, or nothing.
  await client
    .query(
      `CREATE SCHEMA ${schema};
       COMMENT ON SCHEMA ${schema} IS 'Made by Sluice: tells the log when tables are altered. Goes with the source.';
       CREATE FUNCTION ${schema}.tell_of_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
         SET search_path = pg_catalog, pg_temp AS ${quoteText(body.replace('TG_ARGV_PREFIX', quoteText(name)))};
       ${trigger('ddl_command_end', altering)}
       ${trigger('sql_drop', dropping)}`,
    )
    .catch(() => {});
}

/** Takes it away; what is not there is no error, and what the role may not drop was not made by it. */
export async function dropDdlTrigger(client: pg.Client, source: string): Promise<void> {
  if (!(await hasDdlTrigger(client, source))) return;
  await client.query(`DROP SCHEMA ${quoteName(ddlTriggerOf(source))} CASCADE`).catch(() => {});
}

/** True when the log is told: then its messages are asked for. */
export async function hasDdlTrigger(client: pg.Client, source: string): Promise<boolean> {
  const { rowCount } = await client.query('SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = $1', [
    `${ddlTriggerOf(source)}_ddl_command_end`,
  ]);
  return rowCount === 1;
}
