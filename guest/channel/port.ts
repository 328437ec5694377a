/** A virtio serial port as a pipe. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, openSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { Pipe } from '../../protocol/channel/multiplexer.ts';
import { goFirst } from '../wake/priority.ts';

const PORTS = '/sys/class/virtio-ports';

/** The device of the port with that name. Throws Error naming those there are. */
export function findSerialPort(name: string, ports = PORTS): string {
  const found = readdirSync(ports).map((device) => {
    try {
      return { device, name: readFileSync(path.join(ports, device, 'name'), 'utf8').trim() };
    } catch {
      return { device, name: '' }; // the system's own console has none
    }
  });
  const port = found.find((each) => each.name === name);
  if (port !== undefined) return path.join('/dev', port.device);
  throw new Error(`no serial port ${name} among: ${found.map((each) => each.name).join(', ') || 'none'}`);
}

/**
 * Opens the device. Reading and writing it blocks, and a thread of Node's own that blocks there could never be ended: two
 * helper processes copy between the device and pipes. `end` ends them.
 */
export function openSerialPort(device: string): Pipe & { end: () => void } {
  const fd = openSync(device, constants.O_RDWR);
  try {
    const reader = spawn('cat', [], { stdio: [fd, 'pipe', 'ignore'] });
    const writer = spawn('cat', [], { stdio: ['pipe', fd, 'ignore'] });
    const { stdout: input } = reader;
    const { stdin: output } = writer;
    if (input === null || output === null) throw new Error('no pipes');
    const end = (): void => {
      for (const child of [reader, writer] satisfies ChildProcess[]) child.kill('SIGKILL');
    };
    for (const child of [reader, writer]) {
      // They only copy, and the host waits for each byte.
      goFirst(child.pid);
      child.on('error', end);
      child.once('exit', end);
    }
    return { input, output, end };
  } finally {
    closeSync(fd);
  }
}
