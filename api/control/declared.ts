/** Sources that are declared in YAML (or by DATABASE_URL): connected and started as soon as that is possible. */
import { setTimeout as sleep } from 'node:timers/promises';
import { asSluiceError, describeError } from '../../model/errors.ts';
import { describeChange } from '../../model/rule_changes.ts';
import type { Config, SourceFile } from '../../workers/config.ts';
import type { Control } from './control.ts';
import { applyDeclared } from './declared_rules.ts';
import type { ConnectBody } from './shapes.ts';
import { connectSource, orderSource } from './sources.ts';

export interface Log {
  info(message: string): void;
  warn(message: string): void;
}

/** The connect request of a declared source. */
export function connectBodyOf(source: SourceFile): ConnectBody {
  const { id, type, connection_string, start: _, ...config } = source;
  return { id, type, connection_string, config };
}

/**
 * Connects and starts declared sources, each by itself; what fails in passing is tried again until `signal`. What is
 * wrong for good is told once and left to people. Never throws.
 */
export async function bringUp(control: Control, sources: SourceFile[], log: Log, signal: AbortSignal): Promise<void> {
  await Promise.all(sources.map((source) => bringUpOne(control, source, log, signal)));
}

/**
 * Declares rules and checks as the files say; those of other origin stay. What fails in passing is tried again until `signal`; what is
 * wrong for good is told once and left to people. Never throws.
 */
export async function declareRules(
  control: Control,
  { transformations: rules, quality: checks }: Pick<Config, 'transformations' | 'quality'>,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  if (rules === undefined && checks === undefined) return;
  await persist('rules', log, signal, async () => {
    const { version, changes } = await applyDeclared(control, { rules, checks });
    const what = changes.length === 0 ? 'are as the configuration says' : changes.map(describeChange).join(', ');
    log.info(`rules: ${what} (version ${version})`);
  });
}

/** Does something until it is done, or wrong for good. */
async function persist(what: string, log: Log, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  let told = '';
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 2, 30_000)) {
    try {
      return await work();
    } catch (error) {
      const known = asSluiceError(error);
      const text = describeError(known);
      if (text !== told) log.warn(`${what} of the configuration: ${text}`);
      told = text;
      if (!known.transient && known.kind !== 'preflight') return;
    }
    await sleep(wait, undefined, { signal }).catch(() => {});
  }
}

async function bringUpOne(control: Control, source: SourceFile, log: Log, signal: AbortSignal): Promise<void> {
  await persist(`source ${source.id}`, log, signal, async () => {
    const { source: state } = await connectSource(control, connectBodyOf(source));
    // What people paused or stopped stays so; `connected` has never been started.
    if (source.start && state.status === 'connected') await orderSource(control, source.id, 'start');
    log.info(`source ${source.id} of the configuration is ${source.start ? 'started' : 'connected'}`);
  });
}
