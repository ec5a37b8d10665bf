/** What is refused before anything behind the API is asked, and what its description says. */
import type { FastifyInstance } from 'fastify';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Settings } from '../workers/settings.ts';
import type { Control } from './control/control.ts';
import type { Problem } from './problems.ts';
import { buildServer } from './server.ts';

let app: FastifyInstance;

beforeAll(async () => {
  const settings: Partial<Settings> = { apiHost: '127.0.0.1', temporalUi: 'http://127.0.0.1' };
  // Nothing of it is asked: requests end before.
  app = await buildServer({ settings } as Control);
});

async function send(method: 'GET' | 'POST', url: string, payload?: string) {
  const headers = payload === undefined ? {} : { 'content-type': 'application/json' };
  const answer = await app.inject({ method, url, headers, ...(payload === undefined ? {} : { payload }) });
  expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  return { status: answer.statusCode, body: answer.json<Problem>() };
}

describe('requests', () => {
  it('that are nested deeper than anybody can read are refused with their place', async () => {
    const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`;
    const objects = `${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`;
    const bodies: [string, string][] = [
      ['/quality/check', `{"asset_id": "a", "rows": [{"v": ${nested(50_000)}}]}`],
      ['/rejects/release', `{"asset_id": "a", "keys": [{"v": ${nested(50_000)}}]}`],
      ['/transformations/preview', `{"rule": ${nested(200_000)}}`],
      ['/schema/s/migrate', `{"rows": [{"v": ${objects}}], "from": 1, "to": 2}`],
      ['/sources/s/start', nested(101)],
    ];
    for (const [path, body] of bodies) {
      const { status, body: problem } = await send('POST', `/api/v1${path}`, body);
      expect([path, status, problem.errors?.[0]?.detail]).toEqual([path, 422, 'is more than 100 deep']);
    }
    const { body } = await send('POST', '/api/v1/quality/check', bodies[0]![1]);
    expect(body.errors![0]!.pointer).toMatch(/^\/rows\/0\/v(\/0){97}$/);
    const allowed = await send('POST', '/api/v1/query', nested(100));
    expect(allowed.body.errors?.[0]?.detail).not.toMatch(/deep/);
  });
  it('whose paths cannot be read are problems', async () => {
    const bad = await send('GET', '/api/v1/transformations/%E0%A4%A');
    expect(bad).toMatchObject({ status: 400, body: { kind: 'request', instance: '/api/v1/transformations/%E0%A4%A' } });
    expect((await send('GET', `/api/v1/transformations/${'x'.repeat(401)}`)).status).toBe(414);
  });

  it('with parameters that nobody knows are refused, and told the known ones', async () => {
    const asset = await send('GET', '/api/v1/rejects?asset_id=x&limit=1');
    expect([asset.status, asset.body.errors]).toEqual([
      422,
      [{ pointer: '/asset_id', detail: 'unknown parameter; known are asset, rule, state, limit, cursor' }],
    ]);
    const odd = await send('GET', '/api/v1/rejects?x/y=1');
    expect(odd.body.errors?.[0]?.pointer).toBe('/x~1y');
    for (const path of ['events', 'lineage/audit', 'lineage/flow'])
      expect([path, (await send('GET', `/api/v1/${path}?nothing=1`)).status]).toEqual([path, 422]);
    // Nothing can be mistyped where there is nothing to choose.
    expect((await send('GET', '/api/v1/quality/rules?nothing=1')).status).not.toBe(422);
  });
});

interface Described {
  paths: Record<
    string,
    Record<string, { responses: Record<string, { content?: Record<string, { schema: object }> }> }>
  >;
}

describe('the description of the API', () => {
  it('declares errors as what they are sent as, and that a token may be missing', async () => {
    const { paths } = (await app.inject({ url: '/openapi.json' })).json<Described>();
    let errors = 0;
    for (const [path, calls] of Object.entries(paths))
      for (const [method, { responses }] of Object.entries(calls)) {
        if (path === '/health') continue;
        expect([method, path, Object.keys(responses)]).toEqual([method, path, expect.arrayContaining(['401'])]);
        for (const [status, { content }] of Object.entries(responses)) {
          const types = Object.keys(content ?? {});
          const isError = Number(status) >= 400;
          if (isError) errors++;
          expect([method, path, status, types.includes('application/problem+json')]).toEqual([
            method,
            path,
            status,
            isError,
          ]);
          if (isError) expect(types).toHaveLength(1);
        }
      }
    expect(errors).toBeGreaterThan(200);
    const { responses } = paths['/health']!.get!;
    expect(Object.keys(responses['503']!.content!)).toEqual(['application/json']);
    const { 409: conflict } = paths['/api/v1/schema/register']!.post!.responses;
    expect(JSON.stringify(conflict)).toContain('reasons');
    const { 422: wrong } = paths['/api/v1/query']!.post!.responses;
    expect(
      Object.keys((wrong!.content!['application/problem+json']!.schema as { properties: object }).properties),
    ).toEqual(expect.arrayContaining(['type', 'title', 'status', 'detail', 'remedy', 'errors']));
  });
});
