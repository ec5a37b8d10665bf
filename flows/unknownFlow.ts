/**
 * What runs for a workflow type that no flow bears, e.g. a mistyped one: without it the worker could do nothing but try
 * again for ever, and nobody would be told.
 */
import { workflowInfo } from '@temporalio/workflow';
import { flowNames } from '../model/messages.ts';
import { nearest } from '../model/nearest_word.ts';
import { refuse } from './refuse.ts';

const more =
  'docs/temporal-ui.md ("Starting a flow by hand") says what each takes. If it is a new one, an older worker polls here.';

/** Fails at once with the flows that there are. */
export async function unknownFlow(): Promise<never> {
  const name = workflowInfo().workflowType.slice(0, 100);
  const known = Object.values(flowNames).sort();
  const meant = nearest(name, known);
  const hint = meant === undefined ? '' : `Did you mean ${meant}? `;
  throw refuse('configuration', `there is no flow ${name}`, `${hint}There are ${known.join(', ')}; ${more}`);
}
