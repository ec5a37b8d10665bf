/** A schedule by script, to test what is made of its times: it answers as Temporal does. */
import type { Client } from '@temporalio/client';

interface Stamp {
  seconds: number;
  nanos: number;
}

interface Asked {
  scheduleId: string;
  startTime: Stamp;
  endTime: Stamp;
}

/** Temporal answers so many times of a range, its first. */
const most = 1000;

export interface ScriptedSchedule {
  client: Client;
  /** How often times were asked for. */
  readonly asked: number;
}

/**
 * A client of a Temporal with one schedule of `extractAssets`, that is due at the whole minutes for which `isDue`,
 * milliseconds since 1970; of any other name there is none.
 */
export function scriptedSchedule(name: string, isDue: (time: number) => boolean): ScriptedSchedule {
  let asked = 0;
  const expectKnown = (id: string) => {
    if (id !== name) throw Object.assign(new Error('schedule not found'), { code: 5 });
  };
  const client = {
    options: { namespace: 'default' },
    workflowService: {
      listScheduleMatchingTimes: async ({ scheduleId, startTime, endTime }: Asked) => {
        asked++;
        expectKnown(scheduleId);
        return { startTime: timesOf(isDue, startTime, endTime) };
      },
    },
    schedule: {
      getHandle: (id: string) => ({
        describe: async () => {
          expectKnown(id);
          const request = { deployment: name, api_url: '${ASSET_API_URL}', page_size: 100 };
          return { action: { workflowType: 'extractAssets', args: [request] } };
        },
      }),
    },
  };
  return {
    client: client as unknown as Client,
    get asked() {
      return asked;
    },
  };
}

/** The start does not belong to the range, the end does. */
function timesOf(isDue: (time: number) => boolean, start: Stamp, end: Stamp): Stamp[] {
  const times: Stamp[] = [];
  for (let seconds = (Math.floor(start.seconds / 60) + 1) * 60; seconds <= end.seconds; seconds += 60) {
    if (times.length === most) break;
    if (isDue(seconds * 1000)) times.push({ seconds, nanos: 0 });
  }
  return times;
}

/** Due at every so many minutes, counted from 1970. */
export function everyMinutes(minutes: number): (time: number) => boolean {
  return (time) => (time / 60_000) % minutes === 0;
}
