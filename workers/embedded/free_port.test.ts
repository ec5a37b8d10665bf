import { afterEach, describe, expect, it, vi } from 'vitest';
import { claimPort, freePort } from './free_port.ts';

describe('a port that fetch refuses to talk to', () => {
  afterEach(() => vi.unstubAllEnvs());

  it('is never taken', async () => {
    vi.stubEnv('SLUICE_FREE_PORTS', '10080-10080');
    await expect(freePort()).rejects.toMatchObject({ kind: 'port_in_use' });
    await expect(fetch('http://127.0.0.1:10080')).rejects.toMatchObject({ cause: { message: 'bad port' } });
  });

  it('is refused with the setting to change', async () => {
    await expect(claimPort(6000, 'SLUICE_API_PORT')).rejects.toThrow(
      'port 6000 (SLUICE_API_PORT) is one that browsers and HTTP clients refuse',
    );
  });
});
