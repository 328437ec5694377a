import RFB from '@novnc/novnc';
import { type FormEvent, type ReactNode, useCallback, useEffect, useRef, useState } from 'react';
import type { SessionId } from '../../protocol/ids.ts';
import { type Problem, problemOf, streamUrl } from '../data/api.ts';
import { ProblemPanel } from './problem-panel.tsx';

/** X11 keysyms (X.Org keysymdef.h) and the physical keys they sit on. */
const CONTROL = { keysym: 0xffe3, code: 'ControlLeft' } as const;
const LETTER_V = { keysym: 0x76, code: 'KeyV' } as const;

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8_000;

type Phase = 'connecting' | 'live' | 'lost';

export interface DesktopProps {
  readonly sessionId: SessionId;
  /** Without tools: only the screen, filling its parent. */
  readonly bare?: boolean;
}

/** The live desktop of a session's browser machine. Reconnects, each time with a new ticket, until it is unmounted. */
export default function Desktop({ sessionId, bare = false }: DesktopProps) {
  const stage = useRef<HTMLDivElement>(null);
  const screen = useRef<HTMLDivElement>(null);
  const rfb = useRef<RFB | null>(null);
  const firstTool = useRef<HTMLButtonElement>(null);
  const [phase, setPhase] = useState<Phase>('connecting');
  const [problem, setProblem] = useState<Problem>();
  const [fit, setFit] = useState(true);
  const [copied, setCopied] = useState('');
  const fitNow = useRef(fit);
  fitNow.current = fit;

  useEffect(() => {
    const stop = new AbortController();
    let retry: ReturnType<typeof setTimeout> | undefined;
    let wait = FIRST_RETRY_MS;

    const again = () => {
      if (stop.signal.aborted) return;
      setPhase('lost');
      retry = setTimeout(() => void open(), wait);
      wait = Math.min(wait * 2, LONGEST_RETRY_MS);
    };

    const open = async () => {
      let url: string;
      try {
        url = await streamUrl({ purpose: 'desktop', sessionId }, stop.signal);
      } catch (thrown) {
        if (stop.signal.aborted) return;
        setProblem(problemOf(thrown));
        again();
        return;
      }
      if (stop.signal.aborted || screen.current === null) return;
      const client = new RFB(screen.current, url, { shared: true });
      rfb.current = client;
      client.background = 'transparent';
      client.showDotCursor = true;
      client.focusOnClick = true;
      applyFit(client, fitNow.current);
      client.addEventListener('connect', () => {
        wait = FIRST_RETRY_MS;
        setProblem(undefined);
        setPhase('live');
        // Typing should work at once, unless the person is busy with another field.
        if (document.activeElement === null || document.activeElement === document.body) client.focus();
      });
      client.addEventListener('clipboard', (event) => setCopied(event.detail.text));
      client.addEventListener('disconnect', () => {
        if (rfb.current === client) rfb.current = null;
        again();
      });
    };

    void open();
    return () => {
      stop.abort();
      clearTimeout(retry);
      rfb.current?.disconnect();
      rfb.current = null;
    };
  }, [sessionId]);

  useEffect(() => {
    if (rfb.current !== null) applyFit(rfb.current, fit);
  }, [fit]);

  const paste = useCallback((text: string) => {
    const client = rfb.current;
    if (client === null || text === '') return;
    client.clipboardPasteFrom(text);
    client.sendKey(CONTROL.keysym, CONTROL.code, true);
    client.sendKey(LETTER_V.keysym, LETTER_V.code);
    client.sendKey(CONTROL.keysym, CONTROL.code, false);
    client.focus();
  }, []);

  useEffect(() => {
    const target = screen.current;
    if (target === null) return;
    // noVNC takes every key. Two are ours: leaving by keyboard, and pasting, where letting the key through to this
    // browser makes it hand over the clipboard without asking for a permission.
    const onKey = (event: KeyboardEvent) => {
      if (event.key === 'Escape' && event.shiftKey) {
        event.preventDefault();
        event.stopPropagation();
        rfb.current?.blur();
        firstTool.current?.focus();
      } else if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === 'v') {
        event.stopPropagation();
      }
    };
    // Browsers send `paste` to the body when what has the focus is not editable, so the document listens.
    const onPaste = (event: ClipboardEvent) => {
      if (!target.contains(document.activeElement)) return;
      const text = event.clipboardData?.getData('text/plain') ?? '';
      event.preventDefault();
      event.stopPropagation();
      paste(text);
    };
    target.addEventListener('keydown', onKey, true);
    document.addEventListener('paste', onPaste, true);
    return () => {
      target.removeEventListener('keydown', onKey, true);
      document.removeEventListener('paste', onPaste, true);
    };
  }, [paste]);

  return (
    <div className={bare ? 'desktop desktop-bare' : 'desktop'} ref={stage}>
      {/* role=application: screen readers hand keys through; the remote screen itself is pixels. */}
      <div className="screen" data-phase={phase}>
        <div
          className="screen-target"
          ref={screen}
          role="application"
          aria-label="Live desktop"
          data-phase={phase}
        />
        {phase !== 'live' && (
          <div className="screen-cover" role="status">
            {phase === 'connecting'
              ? 'Connecting to the desktop'
              : 'The desktop is not connected. Trying again'}
          </div>
        )}
      </div>
      {problem !== undefined && phase !== 'live' && (
        <ProblemPanel title="The desktop cannot be opened" problem={problem} />
      )}
      {!bare && (
        <DesktopTools copied={copied} live={phase === 'live'} onPaste={paste}>
          <button
            type="button"
            ref={firstTool}
            className="button button-plain"
            aria-pressed={!fit}
            onClick={() => setFit(!fit)}
          >
            Actual size
          </button>
          <button
            type="button"
            className="button button-plain"
            onClick={() => {
              void stage.current?.requestFullscreen().then(() => rfb.current?.focus());
            }}
          >
            Full screen
          </button>
        </DesktopTools>
      )}
    </div>
  );
}

/** Fit: the whole screen, scaled. Otherwise pixel by pixel, moved by dragging: for reading on a small display. */
function applyFit(client: RFB, fit: boolean): void {
  client.scaleViewport = fit;
  client.clipViewport = !fit;
  client.dragViewport = !fit;
}

interface DesktopToolsProps {
  readonly copied: string;
  readonly live: boolean;
  readonly onPaste: (text: string) => void;
  readonly children: ReactNode;
}

function DesktopTools({ copied, live, onPaste, children }: DesktopToolsProps) {
  const [text, setText] = useState('');
  const submit = (event: FormEvent) => {
    event.preventDefault();
    onPaste(text);
    // A password may have been pasted: it does not stay in the page.
    setText('');
  };
  return (
    <div className="desktop-tools">
      <form className="paste" onSubmit={submit}>
        <label className="visually-hidden" htmlFor="paste-text">
          Text to paste into the machine's browser
        </label>
        <input
          id="paste-text"
          className="field"
          value={text}
          onChange={(event) => setText(event.target.value)}
          placeholder="Text for the machine's browser"
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
        />
        <button type="submit" className="button button-plain" disabled={!live || text === ''}>
          Paste into the machine
        </button>
      </form>
      <div className="row">{children}</div>
      <p className="hint">
        Click the desktop to type in it; <kbd>Shift</kbd>+<kbd>Esc</kbd> leaves it. <kbd>Ctrl</kbd>+
        <kbd>V</kbd> pastes what you copied here.
      </p>
      {copied !== '' && (
        <div className="copied">
          <span>
            Copied in the machine: <code>{copied.length > 60 ? `${copied.slice(0, 60)}…` : copied}</code>
          </span>
          <button
            type="button"
            className="button button-plain"
            onClick={() => void navigator.clipboard.writeText(copied)}
          >
            Copy here
          </button>
        </div>
      )}
    </div>
  );
}
