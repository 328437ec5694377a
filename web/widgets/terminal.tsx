import { FitAddon } from '@xterm/addon-fit';
import { Terminal as Xterm } from '@xterm/xterm';
import '@xterm/xterm/css/xterm.css';
import { useEffect, useRef, useState } from 'react';
import type { z } from 'zod';
import type { TerminalControl } from '../../protocol/api.ts';
import type { MachineId } from '../../protocol/ids.ts';
import { type Problem, problemOf, streamUrl } from '../data/api.ts';
import { Badge } from './basics.tsx';
import { ProblemPanel } from './problem-panel.tsx';

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8_000;
/** RFC 6455: the other side closed because its work is done. Here: the shell has ended. */
const CLOSE_NORMAL = 1000;

type Phase = 'connecting' | 'live' | 'lost' | 'ended';

const PHASE_WORDS = {
  connecting: { tone: 'busy', words: 'Connecting' },
  live: { tone: 'good', words: 'Connected' },
  lost: { tone: 'bad', words: 'Connection lost, trying again' },
  ended: { tone: 'neutral', words: 'Ended' },
} as const;

/** A terminal in a CLI machine. A lost connection is opened again with a new ticket and a new shell. */
export default function Terminal({ machineId }: { readonly machineId: MachineId }) {
  const place = useRef<HTMLDivElement>(null);
  const [phase, setPhase] = useState<Phase>('connecting');
  const [problem, setProblem] = useState<Problem>();
  const [run, setRun] = useState(0);

  // biome-ignore lint/correctness/useExhaustiveDependencies: `run` changes to open a new terminal.
  useEffect(() => {
    const parent = place.current;
    if (parent === null) return;
    const stop = new AbortController();
    const xterm = new Xterm({
      fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
      fontSize: 14,
      scrollback: 5_000,
      cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
      theme: {
        background: '#11161c',
        foreground: '#e3e8ee',
        cursor: '#7fd6bd',
        selectionBackground: '#2f5a66',
      },
    });
    const fit = new FitAddon();
    xterm.loadAddon(fit);
    xterm.open(parent);
    xterm.textarea?.setAttribute('aria-label', 'Terminal input');
    // A terminal takes Tab; this is the way out by keyboard.
    xterm.attachCustomKeyEventHandler((event) => {
      if (event.key !== 'Escape' || !event.shiftKey) return true;
      if (event.type === 'keydown') {
        xterm.blur();
        document.querySelector<HTMLElement>('#terminal-back')?.focus();
      }
      return false;
    });
    fit.fit();
    setPhase('connecting');

    let socket: WebSocket | undefined;
    let retry: ReturnType<typeof setTimeout> | undefined;
    let wait = FIRST_RETRY_MS;
    const encoder = new TextEncoder();

    const sendBytes = (bytes: Uint8Array<ArrayBuffer>) => {
      if (socket?.readyState === WebSocket.OPEN) socket.send(bytes);
    };
    const sendSize = () => {
      const size: z.infer<typeof TerminalControl> = { type: 'size', cols: xterm.cols, rows: xterm.rows };
      if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(size));
    };
    const again = () => {
      if (stop.signal.aborted) return;
      setPhase('lost');
      retry = setTimeout(() => void open(), wait);
      wait = Math.min(wait * 2, LONGEST_RETRY_MS);
    };
    const open = async () => {
      try {
        const url = await streamUrl({ purpose: 'terminal', machineId }, stop.signal);
        if (stop.signal.aborted) return;
        const sized = new URL(url);
        // The shell starts in the right size; later changes go as text frames.
        sized.searchParams.set('cols', String(xterm.cols));
        sized.searchParams.set('rows', String(xterm.rows));
        socket = new WebSocket(sized);
      } catch (thrown) {
        if (stop.signal.aborted) return;
        setProblem(problemOf(thrown));
        again();
        return;
      }
      socket.binaryType = 'arraybuffer';
      socket.onopen = () => {
        wait = FIRST_RETRY_MS;
        setProblem(undefined);
        setPhase('live');
        sendSize();
        xterm.focus();
      };
      socket.onmessage = (message: MessageEvent<unknown>) => {
        if (message.data instanceof ArrayBuffer) xterm.write(new Uint8Array(message.data));
      };
      socket.onclose = (event) => {
        if (stop.signal.aborted) return;
        if (event.code === CLOSE_NORMAL) setPhase('ended');
        else again();
      };
    };

    xterm.onData((text) => sendBytes(encoder.encode(text)));
    // Mouse reports come as bytes in a string; UTF-8 would change those above 127.
    xterm.onBinary((text) => sendBytes(Uint8Array.from(text, (character) => character.charCodeAt(0))));
    xterm.onResize(sendSize);
    const watcher = new ResizeObserver(() => fit.fit());
    watcher.observe(parent);
    void open();
    return () => {
      stop.abort();
      clearTimeout(retry);
      watcher.disconnect();
      socket?.close(CLOSE_NORMAL);
      xterm.dispose();
    };
  }, [machineId, run]);

  const { tone, words } = PHASE_WORDS[phase];
  return (
    <div className="terminal">
      <div className="row" role="status">
        <Badge tone={tone}>{words}</Badge>
        {phase === 'ended' && (
          <button type="button" className="button button-plain" onClick={() => setRun(run + 1)}>
            Open a new one
          </button>
        )}
      </div>
      {problem !== undefined && phase !== 'live' && (
        <ProblemPanel title="The terminal cannot be opened" problem={problem} />
      )}
      <section className="terminal-place" aria-label="Terminal">
        <div className="terminal-inner" ref={place} />
      </section>
    </div>
  );
}
