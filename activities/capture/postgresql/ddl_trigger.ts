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

/** Statements that alter tables, or what decides how the log sends them, by the events that tell of them. */
const tags = {
  ddl_command_end: [
    ...['TABLE', 'INDEX', 'TYPE', 'DOMAIN', 'SCHEMA', 'PUBLICATION'].flatMap((kind) => [
      `CREATE ${kind}`,
      `ALTER ${kind}`,
    ]),
    ...['CREATE TABLE AS', 'SELECT INTO'],
  ],
  sql_drop: ['TABLE', 'INDEX', 'TYPE', 'DOMAIN', 'SCHEMA', 'PUBLICATION', 'EXTENSION', 'OWNED'].map(
    (kind) => `DROP ${kind}`,
  ),
};

const comment = 'Made by Sluice: tells the log when tables are altered. Goes with the source.';

/** Tables are told by their oids, about which few ask; all else, that something was altered, by a star. */
const told = (expression: string, from: string) =>
  `SELECT pg_catalog.string_agg(DISTINCT ${expression}, ' ') INTO objects FROM pg_catalog.${from}`;

/**
 * Runs with the rights of its owner, whoever alters, and by no names but those of the system. What goes wrong in it fails no
 * statement. The message is sent outside of the block that catches: inside, each statement would take the id of a
 * subtransaction, and a migration of many would slow the whole server down until it ends.
 */
const bodyOf = (prefix: string) => `
DECLARE objects pg_catalog.text;
BEGIN
  BEGIN
    IF NOT (SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(oid, 'EXECUTE')) FROM pg_catalog.pg_proc
        WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::pg_catalog.regnamespace) THEN
      RETURN;
    END IF;
    IF TG_EVENT = 'sql_drop' THEN
      ${told(
        "CASE WHEN object_type = 'table' THEN objid::pg_catalog.text ELSE '*' END",
        `pg_event_trigger_dropped_objects() WHERE NOT is_temporary AND object_type <> 'default value'
          AND (original OR normal OR object_type = 'table')`,
      )};
    ELSE
      ${told(
        `CASE WHEN classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND command_tag = 'ALTER TABLE'
          THEN pg_catalog.concat_ws(' ', objid, pg_catalog.pg_partition_root(objid)::pg_catalog.oid) ELSE '*' END`,
        "pg_event_trigger_ddl_commands() WHERE schema_name IS DISTINCT FROM 'pg_temp'",
      )};
    END IF;
  EXCEPTION WHEN OTHERS THEN
    RETURN;
  END;
  IF objects IS NOT NULL THEN
    PERFORM pg_catalog.pg_logical_emit_message(true, ${quoteText(prefix)}, objects);
  END IF;
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
  const triggers = Object.entries(tags).map(([event, list]) => {
    const trigger = quoteName(`${name}_${event}`);
    const when = list.map((tag) => `'${tag}'`).join(', ');
    return `CREATE EVENT TRIGGER ${trigger} ON ${event} WHEN TAG IN (${when}) EXECUTE FUNCTION ${schema}.tell_of_ddl();
      ALTER EVENT TRIGGER ${trigger} ENABLE ALWAYS;`;
  });
  // What is left of an earlier one, such as a schema whose triggers somebody has dropped, goes first. One text is one transaction.
  // The schema must be new: in somebody else's, its owner could put another function in the place of ours.
  await dropDdlTrigger(client, source).catch(() => {});
  await client
    .query(
      `CREATE SCHEMA ${schema}; COMMENT ON SCHEMA ${schema} IS ${quoteText(comment)};
       CREATE FUNCTION ${schema}.tell_of_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
         SET search_path = pg_catalog, pg_temp AS ${quoteText(bodyOf(name))};
       ${triggers.join('\n')}`,
    )
    .catch(() => {});
}

/** Takes away what `makeDdlTrigger` made, and nothing else; what is not there is no error. Errors: those of the server. */
export async function dropDdlTrigger(client: pg.Client, source: string): Promise<void> {
  const schema = ddlTriggerOf(source);
  const { rowCount } = await client.query(
    `SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = $1 AND pg_catalog.obj_description(n.oid, 'pg_namespace') = $2`,
    [schema, comment],
  );
  if (rowCount === 0) return;
  const drops = Object.keys(tags).map((event) => `DROP EVENT TRIGGER IF EXISTS ${quoteName(`${schema}_${event}`)};`);
  await client.query(
    `${drops.join(' ')} DROP FUNCTION IF EXISTS ${quoteName(schema)}.tell_of_ddl(); DROP SCHEMA ${quoteName(schema)};`,
  );
}

/** True when the log is told: then its messages are asked for. */
export async function hasDdlTrigger(client: pg.Client, source: string): Promise<boolean> {
  const names = Object.keys(tags).map((event) => `${ddlTriggerOf(source)}_${event}`);
  const { rowCount } = await client.query('SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = ANY($1)', [names]);
  return rowCount === names.length;
}
