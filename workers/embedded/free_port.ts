/** Ports: which are free, and the error that names the one which is not. */
import { createServer } from 'node:net';
import { SluiceError } from '../../model/errors.ts';

/** True when nobody listens there. */
export function isPortFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** Ports above 1023 that browsers and `fetch` never talk to: "bad ports" of the Fetch standard. */
const unreachable = new Set([
  1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
]);

const given = new Set<number>();

/**
 * Ports that `0` is taken from, as `SLUICE_FREE_PORTS=first-last`; the default is below the range from which systems choose
 * ports for outgoing connections. Processes that start parts at the same time are told ranges of their own.
 */
function portRange(text = process.env.SLUICE_FREE_PORTS ?? '10000-19999'): [number, number] {
  const [, first, last] = /^(\d+)-(\d+)$/.exec(text) ?? [];
  if (Number(first) > 0 && Number(last) >= Number(first) && Number(last) < 65_536) return [Number(first), Number(last)];
  throw new SluiceError('configuration', `SLUICE_FREE_PORTS is ${text}`, 'Right is e.g. SLUICE_FREE_PORTS=10000-19999');
}

/** A free port that this process has not given out before; it stays free until its part listens. */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  const [first, last] = portRange();
  for (let attempt = 0; attempt < 500; attempt++) {
    const port = first + Math.floor(Math.random() * (last - first + 1));
    if (given.has(port) || unreachable.has(port) || !(await isPortFree(port, host))) continue;
    given.add(port);
    return port;
  }
  const remedy = 'End programs that listen there, or set SLUICE_FREE_PORTS to others (first-last).';
  throw new SluiceError('port_in_use', `no free port was found from ${first} to ${last}`, remedy);
}

/**
 * The wanted port itself, or any free one for 0. Errors: `port_in_use`, naming port and variable; `configuration` for one
 * that no browser would talk to.
 */
export async function claimPort(port: number, variable: string, host = '127.0.0.1'): Promise<number> {
  if (port === 0) return freePort(host);
  if (unreachable.has(port))
    throw new SluiceError(
      'configuration',
      `port ${port} (${variable}) is one that browsers and HTTP clients refuse to talk to`,
      `Set ${variable} to another port (0 takes any free one).`,
    );
  if (await isPortFree(port, host)) return port;
  throw new SluiceError(
    'port_in_use',
    `port ${port} (${variable}) is in use by another program`,
    `End that program, or set ${variable} to another port (0 takes any free one).`,
  );
}
