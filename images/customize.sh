#!/bin/sh
# Runs once, as root on the build host, after the packages of the base layer are installed. $1 is the new root.
# Makes the parts that are the same on every machine and removes those that must not be.
set -eu
root=$1
umask 022

# The person. The group of the same name comes first, so that both ids are fixed.
chroot "$root" groupadd --gid 1000 person
chroot "$root" useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash person

# Exactly one owner of eth0: networkd, and only in machines that run systemd. Nobody resolves names in the guest:
# /etc/resolv.conf is an empty file that the driver or the agent fills.
chroot "$root" systemctl --quiet enable systemd-networkd.service
chroot "$root" systemctl --quiet disable systemd-networkd-wait-online.service
chroot "$root" systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
  e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-pstore.service getty@tty1.service
rm -f "$root/etc/resolv.conf"
: > "$root/etc/resolv.conf"

# Identity belongs to the machine, not to the image. An empty machine-id (not a missing one) keeps systemd from
# treating every start as a first boot with presets.
: > "$root/etc/machine-id"
rm -f "$root/etc/hostname" "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed" \
  "$root"/etc/ssh/ssh_host_*
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' > "$root/etc/hosts"

# Where the packages came from is the build host's business (and may hold a password).
rm -rf "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/auth.conf* \
  "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"

# fontconfig trusts a cache only if it names the time of the font directory, and every time in the layer is the epoch.
find "$root/usr/share/fonts" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
rm -rf "$root"/var/cache/fontconfig/*
chroot "$root" fc-cache --system-only --force

# Byte code names the time of its source, which is the epoch now: it would be read and thrown away.
find "$root/usr" -type d -name __pycache__ -prune -exec rm -rf {} +

# Traces of the build.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root/var/cache/ldconfig/aux-cache" \
  "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/tmp/* "$root"/var/tmp/* "$root"/run/*
rm -f "$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/subuid- \
  "$root"/etc/subgid- "$root"/etc/.pwd.lock
find "$root/var/log" -type f -delete
