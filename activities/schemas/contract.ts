/**
 * The activities of the registry of schemas, as the catalog sees them. The catalog calls one at a time and gives each an id
 * above all before; each may run again after a crash, and changes nothing then.
 */
import type {
  CompatibilityRequest,
  RegisterAnswer,
  RegisterRequest,
  RegistrySummary,
  SubjectState,
} from '../../model/subject.ts';

export interface SchemaActivities {
  /** What stands in ClickHouse; subjects up to `subjectsLimit` bytes. */
  summariseRegistry(): Promise<RegistrySummary>;

  /** Checks a schema against the versions of its subject, and stores it under the next version when it goes with them. */
  registerSchema(input: RegisterRequest & { id: number }): Promise<RegisterAnswer>;

  /** Stores the mode of a subject. Errors: `not_found`. */
  setCompatibility(input: CompatibilityRequest & { id: number }): Promise<SubjectState>;

  /**
   * Registers the schemas of a source's copies whose latest versions are others, under the ids of their assets. What a source is
   * now is a fact: no mode refuses it. Ids are taken from `id` on; answers the subjects that have a new version, and digests of
   * the lineage that is another one than before. `workflow`: whose activity has stored it.
   */
  registerTables(input: {
    source: string;
    id: number;
    workflow?: { workflow_id: string; run_id: string };
  }): Promise<RegistrySummary & { definitions?: Record<string, string> }>;
}
