/** What becomes of what the files of config/ declare, as `sluice apply` tells it. */

/** One field that is another. */
export interface FieldChange {
  field: string;
  /** Null: there is none. */
  from: unknown;
  to: unknown;
}

/** What becomes of one thing that the files declare, or that is declared and not in them. */
export interface Planned {
  what: 'source' | 'table' | 'rule' | 'check';
  /** Of a table its asset. */
  id: string;
  /** `extra`: not in the files, and kept · `conflict`: it cannot be made as the file says. */
  action: 'create' | 'update' | 'delete' | 'unchanged' | 'extra' | 'conflict';
  differences: FieldChange[];
  error: string | null;
}

/** These fields, as they are and as they will be. */
export function fieldChanges(
  from: Record<string, unknown>,
  to: Record<string, unknown>,
  fields: string[],
): FieldChange[] {
  return fields.map((field) => ({ field, from: from[field] ?? null, to: to[field] ?? null }));
}
