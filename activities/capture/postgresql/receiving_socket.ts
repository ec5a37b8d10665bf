/**
 * A socket that reads into the same memory again and again. Node gives every read a buffer of 64 KB of its own; at the
 * rate of a snapshot its collector then works as hard as the encoder does.
 */
import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net';

/** Bytes that are read at once at most. */
const readAtOnce = 256 * 1024;

export class ReceivingSocket extends Socket {
  /** Gets what is received, valid only during the call. Until it is set, `data` events bring copies, as usual. */
  receive: ((bytes: Buffer) => void) | undefined;

  constructor() {
    const options: ConnectOpts = {
      onread: {
        buffer: Buffer.allocUnsafe(readAtOnce),
        callback: (length, memory) => {
          const bytes = Buffer.from(memory.buffer, memory.byteOffset, length);
          if (this.receive) this.receive(bytes);
          else this.emit('data', Buffer.from(bytes));
          return true;
        },
      },
    };
    // Sockets take it since Node 12; their types know it of connections only.
    super(options as SocketConstructorOpts);
  }
}
