/**
 * Where this process may send requests to. What comes from the worker's own environment is trusted; an address that
 * somebody wrote into a flow's input must be on the list of allowed hosts, so that a flow is no way into other services.
 */
import { SluiceError } from '../../model/errors.ts';

const reference = /^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$/;

/**
 * The address behind a text: a reference such as `${ASSET_API_URL}`, or an address whose host is that of ASSET_API_URL
 * or listed in SLUICE_OUTGOING_HOSTS (comma-separated; `*.example.com` allows all below). Errors: `configuration`.
 */
export function resolveOutgoing(text: string, environment: NodeJS.ProcessEnv = process.env): URL {
  const name = reference.exec(text)?.[1];
  if (name !== undefined) return readUrl(readVariable(name, environment), `the variable ${name}`);
  const url = readUrl(text, 'the address');
  if (isAllowed(url, environment)) return url;
  throw new SluiceError(
    'configuration',
    `requests to ${url.host} are not allowed`,
    `Set SLUICE_OUTGOING_HOSTS=${url.hostname} where the worker runs, or write the address as \${ASSET_API_URL} and set that there.`,
  );
}

/** The value behind a reference. Errors: `configuration` when it is not set. */
export function readReference(text: string, environment: NodeJS.ProcessEnv = process.env): string {
  return readVariable(reference.exec(text)?.[1] ?? '', environment);
}

function readVariable(name: string, environment: NodeJS.ProcessEnv): string {
  const value = environment[name];
  if (value) return value;
  const reason = `the environment variable ${name} is not set`;
  throw new SluiceError('configuration', reason, `Set ${name} where the worker runs.`);
}

function readUrl(text: string, what: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url && (url.protocol === 'http:' || url.protocol === 'https:')) return url;
  throw new SluiceError('configuration', `${what} is no http(s) address`, 'Write e.g. https://assets.example.com/v1.');
}

function isAllowed(url: URL, environment: NodeJS.ProcessEnv): boolean {
  const own = environment.ASSET_API_URL;
  if (own && URL.canParse(own) && new URL(own).host === url.host) return true;
  const listed = (environment.SLUICE_OUTGOING_HOSTS ?? '').split(',').map((host) => host.trim().toLowerCase());
  const host = url.hostname.toLowerCase();
  return listed.some((one) => one !== '' && (one === host || (one.startsWith('*.') && host.endsWith(one.slice(1)))));
}
