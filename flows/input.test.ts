import { describe, expect, it } from 'vitest';
import type { ErrorReport } from '../model/errors.ts';
import { readExtractRequest } from './input.ts';

/** What a reader refuses an input with. */
function refusal(read: (input: unknown) => unknown, input: unknown): ErrorReport {
  try {
    read(input);
  } catch (error) {
    return (error as { details: [ErrorReport] }).details[0];
  }
  throw new Error('it was not refused');
}

describe('an extract request', () => {
  it('with an address that may hold a secret is refused without repeating it', () => {
    for (const address of [
      'https://api.example.com/v1?api_key=hunter2',
      'https://api.example.com/v1#hunter2',
      'https://ada:hunter2@api.example.com',
    ]) {
      // biome-ignore format: one line
      const report = refusal(readExtractRequest, { deployment: 'assets', api_url: address });
      expect(report.kind).toBe('configuration');
      expect(report.reason).toMatch(/`api_url` .* kept in its history/);
      expect(report.remedy).toMatch(/Put the whole address into .* "\$\{NAME\}".* If it held a secret, change that\./);
      expect(JSON.stringify(report)).not.toContain('hunter2');
    }
  });

  it('that is wrong is shown a right one, with its deployment', () => {
    const report = refusal(readExtractRequest, { deployment: 'assets', api_url: 'nowhere' });
    expect(report.remedy).toMatch(/"deployment": "assets", "api_url"/);
  });

  it('has an address without secrets, or a reference', () => {
    for (const address of ['https://api.example.com/v1', '${ASSET_API_URL}'])
      expect(readExtractRequest({ deployment: 'assets', api_url: address })).toMatchObject({ api_url: address });
  });
});
