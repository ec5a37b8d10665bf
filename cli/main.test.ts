import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { main } from './main.ts';

let out: string;
let err: string;

beforeEach(() => {
  out = '';
  err = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    out += text;
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    err += text;
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
});

const sluice = (...args: string[]) => main(['node', 'sluice', ...args]);

describe('wrong usage', () => {
  it.each([
    [['run', '--json'], "missing required argument 'deployment'", '--help'],
    [['--json', 'run'], "missing required argument 'deployment'", '--help'],
    [
      ['run', 'x', '--param', 'y', '--json'],
      /'--param <key=value>' argument 'y' is invalid\. write key=value/,
      '--help',
    ],
    [['statsu', '--json'], "unknown command 'statsu'", 'Did you mean status?'],
    [['sources', 'lst', '--json'], "unknown command 'lst'", 'Did you mean list?'],
    [['run', 'x', '--nowait', '--json'], "unknown option '--nowait'", 'Did you mean --no-wait?'],
    [['--json'], 'no command is named', '--help'],
    [['sources', '--json'], 'no command is named', '--help'],
    [['backfill', 'x', '--json'], 'a backfill needs --from and --to, or --table', 'sluice backfill x --from'],
  ])('%j is told as JSON, with status 2', async (args, reason, remedy) => {
    expect(await sluice(...args)).toBe(2);
    const { error } = JSON.parse(out);
    expect(error).toMatchObject({ kind: 'configuration', remedy: expect.stringContaining(remedy) });
    expect(error.reason).toMatch(reason);
    expect(err).toBe('');
  });

  it('is told people in words', async () => {
    expect(await sluice('run')).toBe(2);
    expect(await sluice('statsu')).toBe(2);
    expect(out).toBe('');
    expect(err).toContain("error: missing required argument 'deployment'\n");
    expect(err).toContain('(see --help)');
    expect(err).toContain('Did you mean status?');
  });

  it('is no question for help, with --json or without', async () => {
    expect(await sluice('run', '--help', '--json')).toBe(0);
    expect(out).toMatch(/^Usage: sluice run /);
  });
});
