/** What the flow `extractAssets` is asked for, and what it answers. */

import { parseDuration } from './duration.ts';

/** How an asset API is read: the parameters of a deployment of `extractAssets`. */
export interface ExtractParameters {
  /**
   * `http(s)://…` without login, query or fragment, any of which may be a secret; or an environment reference such as
   * `${ASSET_API_URL}` that the worker resolves, to any address.
   */
  api_url: string;
  /** Assets asked for at once. */
  page_size: number;
  /** Sent as bearer token; an environment reference, never the token itself. */
  token?: string;
  /** How far before the kept position a run asks again, as `5m`: for an API that shows assets later than it dates them. */
  lookback?: string;
}

/** Input of `extractAssets`: without an interval it pulls from the kept position up to the run's nominal time. */
export interface ExtractRequest extends ExtractParameters {
  /** Name of the deployment: also of its copy, and of its folder in asset_data. */
  deployment: string;
  /** Both or none, as instants: pulls [from, to) and leaves the kept position. `to` may not lie in the future. */
  from?: string;
  to?: string;
}

/** What one run did. */
export interface ExtractAnswer {
  deployment: string;
  /** The interval that was pulled; `from` is '' for the beginning of time. */
  from: string;
  to: string;
  files: number;
  rows: number;
  rejected: number;
  /** Where the next scheduled run begins. */
  position: string;
}

export const defaultPageSize = 500;
export const largestPageSize = 10_000;

const reference = /^\$\{[A-Za-z_][A-Za-z0-9_]*\}$/;
const example = 'Right is e.g. {"api_url": "${ASSET_API_URL}", "page_size": 500}.';

/** Makes the error for a wrong input: what is wrong, and the next step, at the least input that is right. */
export type Wrong = (reason: string, remedy: string) => Error;

/** The parameters with their defaults. Throws what `wrong` makes, with `right` as example. */
export function readExtractParameters(input: unknown, wrong: Wrong, right = example): ExtractParameters {
  if (typeof input !== 'object' || input === null || Array.isArray(input))
    throw wrong('the parameters are not an object', right);
  const {
    api_url: url,
    page_size: size = defaultPageSize,
    token,
    lookback,
    ...others
  } = input as Record<string, unknown>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined)
    throw wrong(`unknown key \`${unknown.slice(0, 40)}\`; known are api_url, page_size, token, lookback`, right);
  const address = readAddress(url, wrong, right);
  if (typeof size !== 'number' || !Number.isInteger(size) || size < 1 || size > largestPageSize)
    throw wrong(`\`page_size\` must be a whole number from 1 to ${largestPageSize}`, right);
  if (token !== undefined && (typeof token !== 'string' || !reference.test(token)))
    throw wrong('`token` must be a reference such as "${ASSET_API_TOKEN}": what a flow is sent is kept', right);
  if (lookback !== undefined && !(typeof lookback === 'string' && (parseDuration(lookback) ?? 0) > 0))
    throw wrong('`lookback` must be a duration such as "5m"', right);
  const given = { ...(token === undefined ? {} : { token }), ...(lookback === undefined ? {} : { lookback }) };
  return { api_url: address, page_size: size, ...given };
}

/** A reference, or an address in which no secret can stand; any other is not repeated. */
function readAddress(url: unknown, wrong: Wrong, right: string): string {
  if (typeof url === 'string' && (reference.test(url) || /^https?:\/\/[^\s@?#]+$/.test(url))) return url;
  if (typeof url === 'string' && /^https?:.*[@?#]/i.test(url)) throw plainSecret(wrong, right);
  throw wrong('`api_url` must be http(s)://…, or a reference to a variable of the worker’s environment', right);
}

function plainSecret(wrong: Wrong, right: string): Error {
  return wrong(
    '`api_url` has a login, a query or a fragment, and what is sent to Temporal is kept in its history',
    'Put the whole address into an environment variable of the worker, and write "${NAME}". ' +
      `If it held a secret, change that. ${right}`,
  );
}
