/** How often copies are compared with their source by themselves, and what it may cost: `config.options.verify`. */
import { parseDuration } from './duration.ts';

export interface VerifySettings {
  /** Seconds from one comparison to the next. */
  interval: number;
  /** The part of the time that a comparison may keep the source busy, above 0 and at most 1. */
  share: number;
  /** Rows that differ are read again from the source. */
  repair: boolean;
}

export const usualVerify: VerifySettings = { interval: 3600, share: 0.1, repair: true };

const shortest = 60;
const keys = ['interval', 'share', 'repair'];

/** The settings that an option means; null = off. What is wrong with it as `mistake`. */
export function readVerify(option: unknown): VerifySettings | null | { mistake: string } {
  if (option === undefined || option === true) return usualVerify;
  if (option === false || option === 'off') return null;
  if (typeof option !== 'object' || option === null || Array.isArray(option))
    return { mistake: 'it is neither off nor a map: write e.g. verify: { interval: 1h }' };
  const unknown = Object.keys(option).find((key) => !keys.includes(key));
  if (unknown !== undefined) return { mistake: `unknown key ${unknown}: keys are ${keys.join(', ')}` };
  const { interval: text = '1h', share = usualVerify.share, repair = true } = option as Record<string, unknown>;
  const interval = typeof text === 'string' ? parseDuration(text) : undefined;
  if (interval === undefined || interval < shortest)
    return { mistake: 'interval is no duration of at least 1m, e.g. 1h' };
  if (typeof share !== 'number' || !(share > 0 && share <= 1))
    return { mistake: 'share is no number above 0, up to 1' };
  if (typeof repair !== 'boolean') return { mistake: 'repair is neither true nor false' };
  return { interval, share, repair };
}

/** The settings of a source whose options were checked; null = off. */
export function verifySettings(options: Record<string, unknown>): VerifySettings | null {
  const read = readVerify(options.verify);
  return read !== null && 'mistake' in read ? usualVerify : read;
}
