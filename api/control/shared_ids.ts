/** Ids of sources and deployments share one namespace: an asset, a copy or a record never has two owners. */
import { SluiceError } from '../../model/errors.ts';
import type { Control } from './control.ts';
import { definitionIn, isOurs } from './deployment_schedule.ts';
import { findSchedule } from './schedules.ts';

/** For who connects a source. Errors: `conflict` when a deployment has that name. */
export async function refuseDeployment(control: Control, id: string): Promise<void> {
  const schedule = await findSchedule(control, id);
  if (schedule === undefined || !isOurs(schedule)) return;
  const deployed = definitionIn(schedule);
  const reason = `there is a deployment ${id}${deployed ? ` (${deployed.flow})` : ''}`;
  const remedy = `Use another id, or delete the deployment: npx sluice deployments delete ${id}`;
  throw new SluiceError('conflict', reason, remedy, { source: id });
}
