/**
 * The files of an interval are named after it, so only one run at a time may write them: a second one over the same
 * interval (a backfill beside a scheduled run) waits until the first has ended or shows no life any more.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { SluiceError } from '../../model/errors.ts';
import { draftEnding, fileError } from './csv_file.ts';

/** Milliseconds without a sign of life after which a run's claim is anybody's. */
const forgotten = 60_000;
const lookAgain = 500;

export interface IntervalClaim {
  /** Gives a sign of life; called every few seconds. */
  touch(): Promise<void>;
  /** Errors: `interval_taken` when another run has taken over, because this one had shown no life. */
  check(): Promise<void>;
  /** The run has ended: the next one may begin. */
  release(): Promise<void>;
}

/**
 * Claims the interval that `base` names in the folder of a deployment for `run`, the workflow's id; its later files and
 * attempts have it then too. While another one has it, `wait` is called before each look, with who that is.
 */
export async function claimInterval(
  folder: string,
  base: string,
  run: string,
  wait: (holder: string, milliseconds: number) => Promise<unknown>,
): Promise<IntervalClaim> {
  const file = path.join(folder, `.${base}.claim${draftEnding}`);
  const holder = () => readFile(file, 'utf8').catch(() => undefined);
  for (;;) {
    if (await create(folder, file, run)) break;
    const found = await holder();
    if (found === run) break;
    if (await isForgotten(file)) await removeClaim(file);
    else if (found !== undefined) await wait(found, lookAgain);
  }
  return {
    touch: async () => {
      const now = new Date();
      await utimes(file, now, now).catch(() => {});
    },
    check: async () => {
      const found = await holder();
      if (found !== run) throw intervalTaken(base, found);
    },
    release: async () => {
      if ((await holder()) === run) await rm(file, { force: true });
    },
  };
}

/** False when there is one. */
async function create(folder: string, file: string, run: string): Promise<boolean> {
  try {
    await mkdir(folder, { recursive: true });
    await writeFile(file, run, { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw fileError(folder, error);
  }
}

async function isForgotten(file: string): Promise<boolean> {
  const mtime = (await stat(file).catch(() => undefined))?.mtimeMs;
  return mtime !== undefined && Date.now() - mtime > forgotten;
}

/** Of several that find it forgotten, one moves it away. */
async function removeClaim(file: string): Promise<void> {
  const away = `${file}-${randomUUID().slice(0, 8)}`;
  const moved = await rename(file, away).then(
    () => true,
    () => false,
  );
  if (moved) await rm(away, { force: true });
}

function intervalTaken(base: string, holder: string | undefined): SluiceError {
  return new SluiceError(
    'interval_taken',
    `another run has taken over the interval ${base}: ${holder ?? 'it has ended by now'}`,
    'Nothing to do: it is tried again by itself, when the other one has ended.',
  );
}
