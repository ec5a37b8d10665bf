/** Logs of Sluice's processes: JSON lines on stderr, without secrets; stdout is for answers. */
import pino from 'pino';
import { redact } from '../activities/secrets.ts';

/** A logger for one process; `level` as in LOG_LEVEL. Lines are written at once: a killed process loses none. */
export function createLog(name: string, level: string): pino.Logger {
  const known = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];
  const stream = { write: (line: string) => void process.stderr.write(redact(line)) };
  const redacted = ['connection_string', '*.connection_string', 'password', '*.password', 'authorization', '*.token'];
  return pino(
    {
      name,
      level: known.includes(level) ? level : level === 'warning' ? 'warn' : 'info',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: redacted, censor: '***' },
    },
    stream,
  );
}
