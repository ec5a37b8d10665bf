import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { SluiceError } from '../model/errors.ts';
import { readDeployments } from './deployment_files.ts';
import { projectFolder } from './settings.ts';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function read(files: Record<string, string>, environment: NodeJS.ProcessEnv = {}) {
  const folder = mkdtempSync(path.join(tmpdir(), 'sluice-deployments-'));
  folders.push(folder);
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
  return readDeployments(folder, environment);
}

/** `file:line reason | remedy` of what reading throws. */
function mistakeIn(files: Record<string, string> | string, environment?: NodeJS.ProcessEnv): string {
  try {
    read(typeof files === 'string' ? { 'a.yaml': files } : files, environment);
  } catch (error) {
    const { kind, message, place, remedy } = error as SluiceError;
    expect(kind, message).toBe('configuration');
    return `${path.basename(place.file ?? '')}:${place.line} ${message} | ${remedy}`;
  }
  throw new Error('no mistake was found');
}

const assets = 'name: assets\nflow: extractAssets\nparameters:\n  api_url: ${ASSET_API_URL}\n';

describe('deployment files', () => {
  it('have defaults, and keep references in parameters', () => {
    const [one] = read({ 'assets.yaml': assets }, { ASSET_API_URL: 'http://secret:1' });
    expect(one?.deployment).toEqual({
      name: 'assets',
      description: '',
      flow: 'extractAssets',
      schedule: [],
      parameters: { api_url: '${ASSET_API_URL}', page_size: 500 },
      tags: [],
      overlap: 'buffer_all',
      catchup_window: '1h',
    });
    expect(path.basename(one?.file ?? '')).toBe('assets.yaml');
    expect(one?.placeOf('flow').line).toBe(2);
  });

  it('take all that the page about them says', () => {
    const text = `${assets}  page_size: 100
description: \${WHAT}
schedule:
  - interval: 15m
  - { cron: "0  */6 * * *", timezone: Europe/Berlin }
tags: [a, b]
task_queue: \${QUEUE}
overlap: skip
catchup_window: 10m
paused: true
`;
    const [one] = read({ 'a.yaml': text, 'notes.txt': 'not: [yaml' }, { WHAT: 'why', QUEUE: 'heavy' });
    expect(one?.deployment).toEqual({
      name: 'assets',
      description: 'why',
      flow: 'extractAssets',
      schedule: [{ interval: '15m' }, { cron: '0 */6 * * *', timezone: 'Europe/Berlin' }],
      parameters: { api_url: '${ASSET_API_URL}', page_size: 100 },
      tags: ['a', 'b'],
      task_queue: 'heavy',
      overlap: 'skip',
      catchup_window: '10m',
      paused: true,
    });
    const scheduleOf = (line: string) => read({ 'a.yaml': assets + line })[0]?.deployment.schedule;
    expect(scheduleOf('schedule: []')).toEqual([]);
    expect(scheduleOf('schedule:')).toEqual([]);
    expect(scheduleOf('schedule: { cron: "0 0 * * 1" }')).toEqual([{ cron: '0 0 * * 1', timezone: 'UTC' }]);
  });

  it('of the project are right', () => {
    const [one] = readDeployments(path.join(projectFolder, 'deployments'), {});
    expect(one?.deployment).toMatchObject({ name: 'assets', schedule: [{ interval: '15m' }], catchup_window: '1h' });
    expect(one?.deployment).not.toHaveProperty('paused');
  });

  it('with unknown keys are refused: where, what is allowed, what was meant', () => {
    expect(mistakeIn(`${assets}overlapp: skip\n`)).toBe(
      'a.yaml:5 unknown key overlapp | Did you mean overlap? Allowed are name, description, flow, schedule, ' +
        'parameters, tags, task_queue, overlap, catchup_window, paused.',
    );
    const keys = 'Allowed are interval, cron, timezone.';
    expect(mistakeIn(`${assets}schedule:\n  intervall: 15m\n`)).toBe(
      `a.yaml:6 unknown key intervall at schedule | Did you mean interval? ${keys}`,
    );
    expect(mistakeIn(`${assets}schedule:\n  - interval: 15m\n  - crom: 15m\n`)).toBe(
      `a.yaml:7 unknown key crom at schedule.1 | Did you mean cron? ${keys}`,
    );
    expect(mistakeIn('name: assets\nflow: extractAsset\n')).toBe(
      'a.yaml:2 unknown flow extractAsset at flow | Did you mean extractAssets? Allowed are extractAssets, verifyCopy.',
    );
    expect(mistakeIn('name: assets\nflow: constructor\n')).toMatch(/^a\.yaml:2 unknown flow constructor/);
  });

  it('with wrong schedules are refused at their line', () => {
    const wrong = (line: string) => mistakeIn(`${assets}schedule: ${line}\n`);
    expect(wrong('15m')).toMatch(/^a\.yaml:5 write \{ interval: 15m \}/);
    expect(wrong('{ interval: soon }')).toBe(
      'a.yaml:5 not a duration at schedule.interval | Write e.g. 30s, 15m, 1h30m or 1d.',
    );
    expect(wrong('{ interval: 900 }')).toMatch(/^a\.yaml:5 not a duration such as/);
    expect(wrong('{ interval: 0s }')).toMatch(/^a\.yaml:5 shorter than 1s/);
    expect(wrong('{ interval: 999999999w }')).toMatch(/^a\.yaml:5 longer than ten years/);
    expect(wrong('{}')).toMatch(/^a\.yaml:5 neither interval nor cron/);
    expect(wrong('{ interval: 15m, cron: "0 0 * * *" }')).toMatch(/^a\.yaml:5 neither interval nor cron, or both/);
    expect(wrong('{ interval: 15m, timezone: UTC }')).toMatch(/^a\.yaml:5 an interval has no time zone/);
    expect(wrong('\n  - interval: 15m\n  - cron: 0 25 * * *')).toBe(
      'a.yaml:7 hour `25`: values are 0 to 23 at schedule.1.cron | Right is e.g. "0 */6 * * *": every six hours.',
    );
    expect(wrong('{ cron: "0 0 * * *", timezone: Europe/Berlinn }')).toMatch(/^a\.yaml:5 no such time zone at/);
    expect(wrong('{ cron: "0 0 * * *", timezone: europe/berlin }')).toMatch(/Did you mean Europe\/Berlin\?$/);
    expect(wrong('[{ cron: "0 0 * * *" }, { cron: "0 1 * * *", timezone: Asia/Tokyo }]')).toMatch(/two time zones/);
    expect(mistakeIn(`${assets}catchup_window: 5s\n`)).toMatch(/^a\.yaml:5 shorter than 10s at catchup_window/);
    expect(mistakeIn(`${assets}overlap: buffer\n`)).toMatch(/^a\.yaml:5 .*buffer_all.* at overlap/);
    expect(mistakeIn(`${assets}paused: sometimes\n`)).toMatch(/^a\.yaml:5 .*boolean.* at paused/);
  });

  it('with wrong parameters are refused at their line, and show right ones', () => {
    expect(mistakeIn('name: assets\nflow: extractAssets\n')).toMatch(
      /^a\.yaml:1 `api_url` must be .* at parameters \| Right is e\.g\. /,
    );
    expect(mistakeIn(`${assets}  page_size: many\n`)).toMatch(/^a\.yaml:5 `page_size` must be a whole number/);
    expect(mistakeIn(`${assets}  pages: 2\n`)).toMatch(/^a\.yaml:5 unknown key `pages`; known are api_url/);
    const secret = mistakeIn(assets.replace('${ASSET_API_URL}', 'http://user:hunter2@host'));
    expect(secret).toMatch(/^a\.yaml:4 `api_url`/);
    expect(secret).not.toContain('hunter2');
    for (const address of ['http://host/v1?api_key=hunter2', 'http://host/v1#hunter2']) {
      const mistake = mistakeIn(assets.replace('${ASSET_API_URL}', `"${address}"`));
      expect(mistake).toMatch(/^a\.yaml:4 `api_url` .*\| Put the whole address into an environment variable/);
      expect(mistake).not.toContain('hunter2');
    }
    expect(mistakeIn('name: daily\nflow: verifyCopy\nparameters: { source: 1 }\n')).toMatch(/^a\.yaml:3 `source`/);
  });

  it('with wrong names, YAML or variables are refused', () => {
    expect(mistakeIn(assets.replace('name: assets', 'name: Assets'))).toMatch(/^a\.yaml:1 an id starts/);
    expect(mistakeIn('name: assets\n')).toMatch(/flow/);
    expect(mistakeIn(`${assets}name: twice\n`)).toMatch(/^a\.yaml:5 .*unique/);
    expect(mistakeIn(`${assets}tags: [a\n`)).toMatch(/^a\.yaml:[56] /);
    expect(mistakeIn(`${assets}description: \${NOT_SET}\n`)).toMatch(
      /^a\.yaml:5 the environment variable NOT_SET is not set/,
    );
  });

  it('of one name are refused, naming both', () => {
    expect(mistakeIn({ 'a.yaml': assets, 'b.yaml': `# the same\n${assets}` })).toMatch(
      /^b\.yaml:2 the deployment assets is also in .*a\.yaml \| Give each its own name\.$/,
    );
  });

  it('that are not there are told, so that nothing is pruned by mistake', () => {
    expect(mistakeIn({ 'assets.yml': assets })).toMatch(/the folder has no \*\.yaml files/);
    expect(() => readDeployments('/nowhere/at/all')).toThrow(/cannot read it: ENOENT/);
  });
});
