/** A schema that does not go with the versions before it, as an error. */
import type { Reason } from '../../model/compatibility.ts';
import type { CompatibilityMode, Schema } from '../../model/schema.ts';
import { ShapeError } from '../../model/shape_error.ts';

/** Thrown when a schema is refused: a pointer to each field that is there, and all reasons. */
export class IncompatibleError extends ShapeError {
  readonly mode: CompatibilityMode;
  readonly reasons: Reason[];

  constructor(subject: string, schema: Schema, mode: CompatibilityMode, reasons: Reason[]) {
    const issues = reasons.map(({ code, field, detail }) => {
      const index = schema.fields.findIndex((one) => one.name === field);
      return { pointer: index < 0 ? '/schema/fields' : `/schema/fields/${index}`, code, detail };
    });
    const remedy =
      'Change the schema as the reasons say, or register it with another compatibility when no reader needs the old one.';
    super(`the schema does not go with ${subject} by ${mode}`, issues, remedy, 'conflict');
    this.mode = mode;
    this.reasons = reasons;
  }
}
