/** The demo's deployment: assets of the simulated API, every 15 minutes; its first run begins at once. */
import path from 'node:path';
import { openControl } from '../../api/control/control.ts';
import { deploy } from '../../api/control/deploy.ts';
import { triggerDeployment } from '../../api/control/deployment_runs.ts';
import { getDeployment } from '../../api/control/deployments.ts';
import { SluiceError } from '../../model/errors.ts';
import { readDeployments } from '../deployment_files.ts';
import { projectFolder, type Settings } from '../settings.ts';

export const demoDeployment = 'assets';

/** Deploys it as its file says, and lets it run when it never has. Errors: those of the file and of Temporal. */
export async function deployDemoAssets(settings: Settings): Promise<void> {
  await using control = openControl(settings);
  const files = readDeployments(path.join(projectFolder, 'deployments'));
  const own = files.filter(({ deployment }) => deployment.name === demoDeployment);
  const { changes } = await deploy(control, own);
  const failed = changes.find((change) => change.error !== null);
  if (failed) throw new SluiceError('unexpected', failed.error ?? '', 'Try it by hand: npx sluice deploy.');
  const { running, last_runs } = await getDeployment(control, demoDeployment);
  if (running.length + last_runs.length === 0) await triggerDeployment(control, demoDeployment);
}
