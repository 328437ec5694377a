/** The harness's end of the socket on which the controller says where it is: records it, and acts at one chosen boundary. */
import { chmod } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { Message, type Visit } from './boundary.ts';

/** At the first visit of `boundary`, `act` is called, and the controller goes on when it has resolved. */
interface Trap {
  readonly boundary: string;
  readonly act: () => Promise<void>;
}

export class Hooks implements AsyncDisposable {
  /** All steps that the workflows can take, as the controller found them. */
  steps: readonly string[] = [];
  /** Called for each visit; the controller waits for it. */
  onVisit: ((visit: Visit) => void | Promise<void>) | undefined;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #trap: Trap | undefined;

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', (socket) => this.#serve(socket));
  }

  static async listen(path: string): Promise<Hooks> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    await chmod(path, 0o666);
    return new Hooks(server);
  }

  arm(trap: Trap): void {
    this.#trap = trap;
  }

  /** Whether the trap was not sprung. */
  disarm(): boolean {
    const armed = this.#trap !== undefined;
    this.#trap = undefined;
    return armed;
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => this.#sockets.delete(socket));
    const lines = createInterface({ input: socket });
    // A controller that was killed.
    lines.on('error', () => undefined);
    lines.on('line', (line) => {
      const message = Message.parse(JSON.parse(line));
      if ('steps' in message) this.steps = message.steps;
      else void this.#arrive(message, socket);
    });
  }

  async #arrive(visit: Visit, socket: Socket): Promise<void> {
    await this.onVisit?.(visit);
    const trap = this.#trap;
    if (trap?.boundary === visit.boundary) {
      this.#trap = undefined;
      await trap.act();
    }
    if (!socket.destroyed) socket.write(`${visit.number}\n`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
