/**
 * The witness: looks, inside the guest, at why the agent does not come up. It asks systemd for the state of the agent's unit,
 * writes it on the console, and ends the machine as soon as it is certain that the agent will not come. A machine whose agent
 * runs pays for it with one look.
 */

/** Lines of it on the console begin with this; the diagnosis reads them. */
const LINE = 'polydev-witness:';

const SCRIPT = `#!/bin/sh
unit=polydev-agent.service
say() { echo "${LINE} $*" > /dev/console; }
end() {
  say "FAILED: $*"
  timeout 10 journalctl --sync
  sleep 1
  systemctl reboot --force --force
}
value() { systemctl show --property="$1" --value $unit; }
waited=0
while :; do
  main=$(value MainPID)
  restarts=$(value NRestarts)
  # The agent makes this folder once it answers.
  [ -d /run/polydev-agent ] && exit 0
  job=$(systemctl list-jobs --no-legend $unit)
  active=$(value ActiveState)
  if [ -z "$job" ] && [ "$main" = 0 ] && [ "$active" != activating ] && [ "$active" != active ]; then
    say "LoadState=$(value LoadState) UnitFileState=$(value UnitFileState) ActiveState=$active Result=$(value Result)"
    for link in /etc/systemd/system/*.wants/$unit; do
      [ -L "$link" ] && [ ! -e "$link" ] && say "dangling link $link"
    done
    end 'systemd will not start the agent'
  fi
  if [ "\${restarts:-0}" -ge 3 ]; then
    say "NRestarts=$restarts Result=$(value Result) ExecMainCode=$(value ExecMainCode) ExecMainStatus=$(value ExecMainStatus)"
    end 'the agent ends whenever it is started'
  fi
  if [ -n "$job" ] && [ "$waited" -ge 6 ]; then
    say "jobs: $(systemctl list-jobs --no-legend | tr -s ' ' | tr '\\n' ';')"
    end 'the agent waits for something that does not come'
  fi
  [ -n "$job" ] && waited=$((waited + 1))
  sleep 5
done
`;

const SERVICE = `[Unit]
Description=Polydev witness of the agent
DefaultDependencies=no
[Service]
ExecStart=/bin/sh /run/polydev/witness
Nice=10
`;

const TIMER = `[Unit]
Description=Polydev witness of the agent
DefaultDependencies=no
[Timer]
OnBootSec=WITNESS_AFTER
AccuracySec=1s
Unit=polydev-witness.service
`;

/** Files of it below /run. \`afterSeconds\` after the start of the kernel it looks for the first time. */
export const witnessFiles = (afterSeconds: number): { path: string; mode: number; text: string }[] => [
  { path: 'polydev/witness', mode: 0o755, text: SCRIPT },
  { path: 'systemd/system/polydev-witness.service', mode: 0o644, text: SERVICE },
  {
    path: 'systemd/system/polydev-witness.timer',
    mode: 0o644,
    text: TIMER.replace('WITNESS_AFTER', String(afterSeconds)),
  },
  {
    // Not of the target that the agent is wanted by: that one waits for the agent's job.
    path: 'systemd/system/sysinit.target.d/polydev-witness.conf',
    mode: 0o644,
    text: '[Unit]\nWants=polydev-witness.timer\n',
  },
];
