#!/bin/bash
# Install vs-tools on a Debian 12 or 13 host. Can be run again at any time: it brings what is missing up to date.
set -euo pipefail

usage() {
    cat <<'EOF'
Usage: ./install.sh [--demo | --uninstall | --packages | --help]

Installs vs-tools on this Debian 12 or 13 host, as root. Run it again to update: samples are overwritten, your
configuration and your guests never.

  --demo       also make a local network (the bridge vsbr0, NAT outwards), a Debian template and a guest "demo"
  --uninstall  take away everything but guests, configuration and Debian packages
  --packages   only install the Debian packages that vs-tools needs
  --help       this text
EOF
}

PREFIX=/opt/vs-tools                 # the virtual environment
NEXT=/opt/.vs-tools.new              # while it is renewed: the next one, then the last one
BIN=/usr/local/sbin                  # links to its scripts
MAN=/usr/local/share/man/man8
COMPLETION=/usr/local/share/bash-completion/completions
SHARE=/usr/local/share/vs-tools      # for other programs: links of the admin's lead here
STATE=/var/lib/vs-tools              # what this script changed outside its own files
SYSTEM=/etc/systemd/system
COMMANDS="vs-adopt vs-backup vs-create vs-control vs-diff vs-enter vs-get vs-hosts vs-import vs-limit vs-log vs-monitor vs-move vs-net vs-pkg vs-ps vs-put vs-remove vs-restore vs-scan vs-stats vs-template vs-unify vs-update vs-fonctions"
ALSO="vs-slave"                         # what a master runs here over ssh
PACKAGES="lxc iproute2 nftables rsync mmdebstrap debian-archive-keyring openssh-client xz-utils zstd python3 python3-venv
    python3-iptables ca-certificates procps util-linux"
SUBIDS=root:131072:4294836224        # LXC refuses ids not listed where the package uidmap is installed
HERE=$(cd "$(dirname "$0")" && pwd)

say() { printf 'install.sh: %s\n' "$*"; }
die() { printf 'install.sh: %s\n' "$1" >&2; exit "${2:-2}"; }

has_systemd() { [ -d /run/systemd/system ]; }

remember() { # remember LINE: so that --uninstall undoes just what was done here
    mkdir -p "$STATE"
    grep -qxF "$1" "$STATE/installed" 2>/dev/null || echo "$1" >> "$STATE/installed"
}

check_host() {
    [ "$(id -u)" = 0 ] || die "this is for root: try it with sudo"
    . /etc/os-release
    case "${ID:-}:${VERSION_ID:-}" in
        debian:12 | debian:13) ;;
        *) die "this is ${PRETTY_NAME:-an unknown system}: vs-tools runs on Debian 12 and 13" ;;
    esac
}

mask_lxc() { # lxc-net would bring up a bridge of its own, lxc-monitord is a daemon that nobody asks
    local unit
    [ -z "$(ls -A /var/lib/lxc 2>/dev/null)" ] || return 0 # somebody uses plain LXC here: its units are theirs
    mkdir -p "$SYSTEM"
    for unit in lxc.service lxc-net.service lxc-monitord.service; do
        [ ! -e "$SYSTEM/$unit" ] && [ ! -L "$SYSTEM/$unit" ] || continue
        if has_systemd && systemctl is-active --quiet "$unit"; then continue; fi
        ln -s /dev/null "$SYSTEM/$unit"
        remember "mask $unit"
    done
}

install_packages() {
    local missing=() package trees=/var/lib/vservers
    mask_lxc # before lxc is there to be started
    [ -d $trees ] || trees=/var/lib
    [ "$(stat -f -c %T $trees)" != btrfs ] || PACKAGES="$PACKAGES btrfs-progs" # a guest is a subvolume there
    for package in $PACKAGES; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Debian packages: ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d made=
    if ! has_systemd && [ ! -e $policy ]; then # init scripts know no masks
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod 755 $policy
        made=$policy
    fi
    local status=0 output
    output=$(mktemp)
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } \
        > "$output" 2>&1 || status=$?
    [ -z "$made" ] || rm -f "$made"
    [ $status = 0 ] || { tail -20 "$output" >&2; rm -f "$output"; die "apt-get failed" 1; }
    rm -f "$output"
    if ! has_systemd && command -v update-rc.d > /dev/null; then
        for script in lxc lxc-net; do
            [ ! -e /etc/init.d/$script ] || update-rc.d $script disable > /dev/null 2>&1 || true
        done
    fi
}

# Guests that run need their commands at any moment, to reboot themselves and to end. So the environment is renewed beside,
# where a mount shows it under its later name, and takes that name in one act. Killed before: all is as it was.
install_python() {
    rm -rf $NEXT
    trap 'rm -rf $NEXT; rmdir $PREFIX 2> /dev/null || true' EXIT
    mkdir -p $PREFIX
    if $PREFIX/bin/python3 -c 'import pip' 2>/dev/null; then cp -a $PREFIX $NEXT; else mkdir $NEXT; fi
    export PREFIX NEXT HERE
    export -f say die renew_python
    unshare --mount bash -euo pipefail -c renew_python
    sync -f $NEXT
    $NEXT/bin/python3 -I -c 'import sys; from vstools.libc import exchange; exchange(*sys.argv[1:])' $NEXT $PREFIX
    rm -rf $NEXT
    for command in $COMMANDS $ALSO; do ln -sfn $PREFIX/bin/"$command" $BIN/"$command"; done
}

renew_python() { # in a mount namespace of its own
    mount --bind "$NEXT" "$PREFIX"
    [ -x "$PREFIX/bin/python3" ] || /usr/bin/python3 -m venv "$PREFIX"
    local stamp=$PREFIX/requirements.sum want build
    want=$(sha256sum < "$HERE/requirements.txt")
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        say "Python packages into $PREFIX"
        "$PREFIX/bin/python3" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
            -r "$HERE/requirements.txt" || die "pip failed" 1
        echo "$want" > "$stamp"
    fi
    build=$(mktemp -d)
    cp -r "$HERE/pyproject.toml" "$HERE/README.md" "$HERE/vstools" "$HERE/templates" "$build"
    "$PREFIX/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        --force-reinstall "$build" || { rm -rf "$build"; die "vs-tools could not be installed" 1; }
    rm -rf "$build"
}

install_documents() {
    rm -f $MAN/vs-*.8
    mkdir -p $MAN $COMPLETION
    $PREFIX/bin/python3 -I -m vstools.cli.manual $MAN $COMPLETION
}

install_shared() { # a Munin plugin, a Nagios check
    mkdir -p $SHARE/munin $SHARE/nagios
    sed "s|@BIN@|$PREFIX/bin|g" "$HERE/share/munin/vs_" > $SHARE/munin/vs_
    chmod 755 $SHARE/munin/vs_
    install -m 644 "$HERE/share/munin/vs_.conf" $SHARE/munin/vs_.conf
    ln -sfn $PREFIX/bin/check_vs_guest $SHARE/nagios/check_vs_guest
    ln -sfn $PREFIX/bin/check_vs_backup $SHARE/nagios/check_vs_backup
}

install_configuration() {
    mkdir -p /etc/vs-tools /etc/vservers/.defaults/scripts
    local sample conf
    for sample in "$HERE"/etc/*.conf.sample; do
        conf=/etc/vs-tools/$(basename "$sample" .sample)
        install -m 644 "$sample" "$conf.sample"
        [ "$(basename "$conf")" = firewall.conf ] || [ -e "$conf" ] || install -m 644 "$sample" "$conf"
    done
    [ -e /etc/vservers/.defaults/context.next ] || echo 10000 > /etc/vservers/.defaults/context.next
    install -d -m 700 /var/lib/vservers /var/lib/vservers/TEMPLATES
    $BIN/vs-fonctions firewall_configure # it names this host's name servers
}

configure_host() {
    local file
    for file in /etc/subuid /etc/subgid; do
        if ! grep -qxF $SUBIDS $file 2>/dev/null; then
            echo $SUBIDS >> $file
            remember "line $file"
        fi
    done
    install -m 644 "$HERE/etc/sysctl.conf" /etc/sysctl.d/vs-tools.conf
    sysctl -q -p /etc/sysctl.d/vs-tools.conf > /dev/null 2>&1 || say "some settings of /etc/sysctl.d/vs-tools.conf were refused here"
}

units() { (cd "$HERE"/systemd && find . -type f -printf '%P\n'); }

install_units() {
    has_systemd || return 0
    local templates unit
    templates=$($PREFIX/bin/python3 -I -c 'import vstools.templates as t; print(t.__path__[0])')
    for unit in $(units); do
        mkdir -p "$(dirname "$SYSTEM/$unit")"
        sed -e "s|@BIN@|$PREFIX/bin|g" -e "s|@TEMPLATES@|$templates|g" "$HERE/systemd/$unit" > "$SYSTEM/$unit"
    done
    systemctl daemon-reload
    systemctl enable --quiet vs-volumes.service
    systemctl try-restart vs-monitor.service # an update; nobody is watched unasked
    local mark name enabled=()
    for mark in /etc/vservers/*/apps/init/mark; do # guests that an earlier installation enabled
        [ -e "$mark" ] && [ "$(cat "$mark")" = default ] || continue
        name=${mark#/etc/vservers/}
        enabled+=(--name "${name%%/*}")
    done
    [ ${#enabled[@]} = 0 ] || $BIN/vs-control "${enabled[@]}" --enable > /dev/null || say "not all guests could be enabled again"
}

demo() {
    . /etc/os-release
    local template=/var/lib/vservers/TEMPLATES/$VERSION_CODENAME.tar.zst name=demo address
    if [ ! -e "$template" ]; then
        say "building $template (a minute)"
        $BIN/vs-template --debootstrap "$VERSION_CODENAME" --file "$template" > /dev/null
    fi
    $BIN/vs-fonctions demo_configure "$template" > /dev/null
    if [ ! -d /etc/vservers/$name ]; then
        address=$($BIN/vs-fonctions demo_address | tr -d '"')
        say "vs-create --name $name --interface $address"
        $BIN/vs-create --name $name --interface "$address" > /dev/null
    fi
    say "vs-control --name $name --start"
    $BIN/vs-control --name $name --start > /dev/null
    $BIN/vs-fonctions demo_reach $name | tr -d '"'
    $BIN/vs-control --name $name
    cat <<EOF
install.sh: the guest runs. Next: vs-enter --name $name; vs-create --name web --interface <an address of the network>
install.sh: the local network is vsbr0 (see /etc/vs-tools/networks.conf). To undo the demo:
    vs-control --name $name --stop && vs-remove --name $name --yes && vs-fonctions local_network_remove
EOF
}

uninstall() {
    local name line word rest
    for name in $(ls /run/vs-tools/guests 2>/dev/null); do
        die "guest $name runs: vs-control --all --stop, then try again"
    done
    if [ -x $PREFIX/bin/vs-fonctions ]; then $PREFIX/bin/vs-fonctions local_network_remove || true; fi
    if has_systemd; then
        for line in "$SYSTEM"/multi-user.target.wants/vs-guest@*.service; do
            [ ! -L "$line" ] || systemctl disable --quiet "$(basename "$line")"
        done
        systemctl disable --quiet --now vs-monitor.service 2> /dev/null || true
        systemctl disable --quiet --now vs-backup.timer 2> /dev/null || true
        systemctl disable --quiet vs-volumes.service 2> /dev/null || true
    fi
    for line in $(units); do rm -f "$SYSTEM/$line"; done
    rm -rf "$SYSTEM"/vs-guest@*.service.d
    rmdir "$SYSTEM"/nftables.service.d 2> /dev/null || true
    for name in $COMMANDS $ALSO; do rm -f $BIN/"$name" $COMPLETION/"$name"; done
    rm -f $MAN/vs-*.8 /etc/sysctl.d/vs-tools.conf
    if [ -e $STATE/installed ]; then
        while read -r word rest; do
            case $word in
                mask) rm -f "$SYSTEM/$rest" ;;
                line) sed -i "/^$SUBIDS\$/d" "$rest" ;;
            esac
        done < $STATE/installed
        rm -f $STATE/installed
    fi
    rm -rf $STATE/monitor $STATE/mails $STATE/source
    [ ! -d $STATE/store ] || say "left: $STATE/store, the copies of guests"
    rmdir $STATE 2>/dev/null || true
    rm -rf $PREFIX $NEXT $SHARE /run/vs-tools
    ! has_systemd || systemctl daemon-reload
    say "removed. Left: /etc/vs-tools, /etc/vservers, /var/lib/vservers, /var/log/vs-tools and the Debian packages"
    say "kernel settings of /etc/sysctl.d/vs-tools.conf end with the next boot"
}

case "${1:-}" in
    "" | --demo | --uninstall | --packages) [ $# -le 1 ] || { usage >&2; exit 2; } ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac
check_host
if [ "${1:-}" = --uninstall ]; then
    uninstall
    exit 0
fi
install_packages
[ "${1:-}" != --packages ] || exit 0
install_python
install_configuration
configure_host
install_documents
install_shared
install_units
mkdir -p "$STATE"
echo "$HERE" > "$STATE/source" # vs-update on a master takes it from there
say "vs-tools is installed: $COMMANDS"
say "configuration: /etc/vs-tools (samples beside); manual: man vs-create; to undo: ./install.sh --uninstall"
if [ "${1:-}" = --demo ]; then demo; fi
