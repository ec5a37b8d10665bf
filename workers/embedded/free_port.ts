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

const given = new Set<number>();

/**
 * A free port that this process has not given out before. Taken below the range from which systems choose ports for
 * outgoing connections, so that it stays free until its part listens.
 */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  for (let attempt = 0; attempt < 500; attempt++) {
    const port = 10_000 + Math.floor(Math.random() * 10_000);
    if (given.has(port) || !(await isPortFree(port, host))) continue;
    given.add(port);
    return port;
  }
  throw new SluiceError('port_in_use', 'no free port was found', 'End programs that listen on ports 10000 to 20000.');
}

/** The wanted port itself, or any free one for 0. Error: `port_in_use`, naming port and variable. */
export async function claimPort(port: number, variable: string, host = '127.0.0.1'): Promise<number> {
  if (port === 0) return freePort(host);
  if (await isPortFree(port, host)) return port;
  throw new SluiceError(
    'port_in_use',
    `port ${port} (${variable}) is in use by another program`,
    `End that program, or set ${variable} to another port (0 takes any free one).`,
  );
}
