/** Subjects of the registry of schemas: what the catalog, its activities and the API tell each other. */
import type { Reason } from './compatibility.ts';
import type { CompatibilityMode, Schema } from './schema.ts';

/** What the catalog knows of a subject; bodies are in `_subjects` in ClickHouse. */
export interface SubjectState {
  /** The latest version. */
  version: number;
  /** Id of that version. */
  id: number;
  compatibility: CompatibilityMode;
}

/** Input of the update `registerSchema`. */
export interface RegisterRequest {
  subject: string;
  /** In its canonical form. */
  schema: Schema;
  /** Becomes the subject's mode; absent: the mode that it has, or BACKWARD. */
  compatibility?: CompatibilityMode;
}

/** Answer of the update `registerSchema`. */
export interface RegisterAnswer extends SubjectState {
  /**
   * `created`: a new version · `same`: the schema is registered already, as this version · `incompatible`: refused for
   * `reasons`, and nothing was changed.
   */
  outcome: 'created' | 'same' | 'incompatible';
  subject: string;
  reasons: Reason[];
}

/** Input of the update `setCompatibility`. */
export interface CompatibilityRequest {
  subject: string;
  compatibility: CompatibilityMode;
}

/** What stands in ClickHouse, as the catalog takes it in when it has lost what it knew. */
export interface RegistrySummary {
  /** The highest id that was ever given; 0 = none. */
  last_id: number;
  subjects: Record<string, SubjectState>;
}

/** Bytes of subjects that the catalog carries; more are in ClickHouse alone. */
export const subjectsLimit = 128 * 1024;
