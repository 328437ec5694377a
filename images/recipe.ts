/**
 * images/: the recipe of the golden image, as data. `host/images/` builds, stores and verifies it.
 *
 * The image is three read-only layers, bottom to top: `base` (Debian packages, this file and `customize.sh`),
 * `clis` (Node and the AI CLIs, `clis/package-lock.json`) and `agent` (the guest agent's bundle and `files/`).
 * Everything here is part of a layer's identity: a change gives the layer, and so the image, a new id.
 */

/** Debian suite the image is made of unless a setting says otherwise. */
export const DEFAULT_SUITE = 'bookworm';

/** Every file in the image carries this time (seconds since 1970): 2025-01-01, any fixed value would do. */
export const EPOCH = 1_735_689_600;

/** Debian packages on top of `minbase`; recommended packages are not followed. */
export const BASE_PACKAGES: readonly string[] = [
  // Init of the virtual machine drivers; the namespace driver starts the agent below tini instead.
  'systemd',
  'systemd-sysv',
  'dbus',
  'udev',
  'tini',
  'iproute2',
  'ca-certificates',
  // The desktop
  'chromium',
  'chromium-sandbox',
  'tigervnc-standalone-server',
  'openbox',
  'xdotool',
  'xclip',
  'xdg-utils',
  'fontconfig',
  'fonts-liberation',
  // What a person and a coding CLI expect in a terminal
  'git',
  'curl',
  'less',
  'nano',
  'procps',
  'ripgrep',
];

/**
 * Files dpkg never unpacks. Software rendering by Mesa goes too (LLVM and the DRI drivers, 160 MB): Chromium
 * brings its own renderer (SwiftShader) and Xvnc runs without GLX.
 */
export const PATH_EXCLUDES: readonly string[] = [
  '/usr/share/doc/*',
  '/usr/share/man/*',
  '/usr/share/info/*',
  '/usr/share/help/*',
  '/usr/share/gtk-doc/*',
  '/usr/share/lintian/*',
  '/usr/share/locale/*',
  '/usr/share/iso-codes/*',
  '/usr/share/xml/iso-codes/*',
  '/usr/lib/*/dri/*',
  '/usr/lib/*/libLLVM*',
  '/usr/lib/*/libz3.so*',
  '/usr/lib/chromium/libVkLayer_khronos_validation.so*',
  '/usr/lib/chromium/libVkICD_mock_icd.so*',
  '/usr/lib/chromium/*.TOC',
];

/** Exceptions to the above: licences stay. */
export const PATH_INCLUDES: readonly string[] = [
  '/usr/share/doc/*/copyright',
  '/usr/share/locale/locale.alias',
];

/** The person who works in a machine. */
export const PERSON = {
  name: 'person',
  uid: 1000,
  gid: 1000,
  home: '/home/person',
  shell: '/bin/bash',
} as const;

/** Commands of the clis layer: link in /usr/local/bin -> launcher below /opt/polydev/clis/node_modules/.bin. */
export const CLI_COMMANDS = ['codex', 'claude', 'gemini'] as const;

/** Packages of the clis layer whose install script must run to put the binary in place (npm 11 runs none). */
export const CLI_INSTALL_SCRIPTS: readonly { package: string; script: string }[] = [
  { package: '@anthropic-ai/claude-code', script: 'install.cjs' },
];

/** Rough sizes for the progress display only: bytes to fetch on an empty cache. */
export const APPROXIMATE_DOWNLOAD = { clis: 420_000_000 } as const;
