#!/bin/sh
# The last step of an image build: $1 is the finished tree. What a host must make itself (ssh host keys, machine id)
# is taken out, and timers that would run apt in the middle of a test are masked.
set -eu

rm -f "$1"/etc/ssh/ssh_host_*
: > "$1/etc/machine-id"
mkdir -p "$1/var/lib/vservers" "$1/var/log/journal"
chmod 700 "$1/var/lib/vservers"
chroot "$1" systemctl --quiet enable lab-first-boot.service
chroot "$1" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer
