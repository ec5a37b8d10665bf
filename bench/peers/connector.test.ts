import { expect, test } from 'vitest';
import { connectorConfig, tunings } from './connector.ts';

const url = 'postgresql://some%40one:p%2Fw%3A@127.0.0.1:15432/my%20base';

test('takes the connection apart, decoded', () => {
  expect(connectorConfig('peer', url, 'usual')).toMatchObject({
    'database.hostname': '127.0.0.1',
    'database.port': '15432',
    'database.user': 'some@one',
    'database.password': 'p/w:',
    'database.dbname': 'my base',
    'slot.name': 'peer',
    'topic.prefix': 'peer',
  });
});

test('the tuned one differs in what is named as tuning, and in nothing else', () => {
  const [usual, tuned] = [connectorConfig('peer', url, 'usual'), connectorConfig('peer', url, 'tuned')];
  expect(tuned).toEqual({ ...usual, ...tunings.tuned });
  expect(Object.keys(tunings.tuned).every((name) => !(name in usual))).toBe(true);
});
