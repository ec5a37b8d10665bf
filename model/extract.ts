/** What the flow `extractAssets` is asked for, and what it answers. */

/** How an asset API is read: the parameters of a deployment of `extractAssets`. */
export interface ExtractParameters {
  /** `http(s)://…` without credentials, or an environment reference such as `${ASSET_API_URL}` that the worker resolves. */
  api_url: string;
  /** Assets asked for at once. */
  page_size: number;
  /** Sent as bearer token; an environment reference, never the token itself. */
  token?: string;
}

/** Input of `extractAssets`: without an interval it pulls from the kept position up to the run's nominal time. */
export interface ExtractRequest extends ExtractParameters {
  /** Name of the deployment: also of its copy, and of its folder in asset_data. */
  deployment: string;
  /** Both or none, as instants: pulls [from, to) and leaves the kept position. */
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

/** Makes the error for a wrong input: what is wrong, and input that is right. */
export type Wrong = (reason: string, example: string) => Error;

/** The parameters with their defaults. Throws what `wrong` makes. */
export function readExtractParameters(input: unknown, wrong: Wrong): ExtractParameters {
  if (typeof input !== 'object' || input === null || Array.isArray(input))
    throw wrong('the parameters are not an object', example);
  const { api_url: url, page_size: size = defaultPageSize, token, ...others } = input as Record<string, unknown>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined)
    throw wrong(`unknown key \`${unknown.slice(0, 40)}\`; known are api_url, page_size, token`, example);
  if (typeof url !== 'string' || !(reference.test(url) || /^https?:\/\/[^\s@]+$/.test(url)))
    throw wrong(
      '`api_url` must be http(s)://… without a password, or a reference to a variable of the worker’s environment',
      example,
    );
  if (typeof size !== 'number' || !Number.isInteger(size) || size < 1 || size > largestPageSize)
    throw wrong(`\`page_size\` must be a whole number from 1 to ${largestPageSize}`, example);
  if (token !== undefined && (typeof token !== 'string' || !reference.test(token)))
    throw wrong('`token` must be a reference such as "${ASSET_API_TOKEN}": what a flow is sent is kept', example);
  return { api_url: url, page_size: size, ...(token === undefined ? {} : { token }) };
}
