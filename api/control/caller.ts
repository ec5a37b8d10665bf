/** Who uses the control module. */
import os from 'node:os';

/** By which way somebody came, and who it is. */
export interface Caller {
  via: 'rest' | 'cli' | 'configuration';
  who: string;
}

/** The user of this process, for the CLI. */
export function thisUser(): string {
  try {
    return os.userInfo().username;
  } catch {
    // Containers run under numbers that no user has.
    return String(process.getuid?.() ?? 'unknown');
  }
}

/** What is written into Temporal's histories about who sent something. */
export function identityOf({ via, who }: Caller): string {
  return `sluice-${via}:${who}@${os.hostname()}`;
}
