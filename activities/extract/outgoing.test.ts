import { expect, it } from 'vitest';
import { resolveOutgoing } from './outgoing.ts';

const environment = {
  ASSET_API_URL: 'http://127.0.0.1:8088',
  OTHER: 'https://user:pw@assets.example.com/v1',
  KEYED: 'https://assets.example.com/v1?api_key=7',
  BROKEN: 'ftp://example.com',
  SLUICE_OUTGOING_HOSTS: 'api.example.com, *.example.org',
};
const resolve = (text: string) => resolveOutgoing(text, environment).href;

it('trusts what the worker’s own environment says', () => {
  expect(resolve('${ASSET_API_URL}')).toBe('http://127.0.0.1:8088/');
  expect(resolve('${OTHER}')).toBe('https://user:pw@assets.example.com/v1');
  expect(resolve('${KEYED}')).toBe('https://assets.example.com/v1?api_key=7');
  expect(() => resolve('${BROKEN}')).toThrow(/no http/);
  expect(() => resolve('${MISSING}')).toThrow(/MISSING is not set/);
});

it('allows other addresses only where their host is listed', () => {
  for (const url of ['http://127.0.0.1:8088/v2', 'https://api.example.com/', 'http://a.b.example.org/'])
    expect(resolve(url)).toBe(url);
  for (const url of [
    'http://127.0.0.1:8089/', 'http://169.254.169.254/', 'https://api.example.com.evil.net/', 'http://example.org/', 'http://[::1]:8088/', 'file:///etc/passwd',
  ]) // biome-ignore format: one line
    expect(() => resolve(url), url).toThrow(/not allowed|no http/);
});
