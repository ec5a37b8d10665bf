/** What preflight found, as an error. */
import { SluiceError } from '../../model/errors.ts';
import type { Finding } from '../../model/source.ts';

/** Thrown when preflight found blockers: one finding each, with its remedy. */
export class FindingsError extends SluiceError {
  readonly findings: Finding[];

  constructor(findings: Finding[], source?: string) {
    const blocking = findings.filter((finding) => finding.blocking);
    const [first] = blocking;
    const more = blocking.length > 1 ? ` (and ${blocking.length - 1} more)` : '';
    const place = { ...(source ? { source } : {}), ...(first?.table ? { table: first.table } : {}) };
    super(
      'preflight',
      `${first?.detail ?? 'the source cannot be captured as asked'}${more}`,
      first?.remedy ?? '',
      place,
    );
    this.findings = blocking;
  }
}
