"""A guest of an old Linux-VServer host, as util-vserver's own documentation describes its directory."""

from pathlib import Path

HOOK = '#!/bin/sh\necho "$1 $2" >> /etc/vservers/$2/hooked\n'
FILES = {
    "context": "33\n", "name": "vs\n", "uts/nodename": "vs.example.org\n", "uts/release": "2.6.8\n",
    "uts/domainname": "example\n",
    "interfaces/dev": "eth0\n", "interfaces/prefix": "24\n", "interfaces/bcast": "10.1.1.255\n",
    "interfaces/0/ip": "10.1.1.2\n", "interfaces/0/name": "vs\n",
    "interfaces/1/ip": "10.1.1.3\n", "interfaces/1/mask": "255.255.255.0\n", "interfaces/1/disabled": "",
    "interfaces/2/ip": "127.0.0.33\n", "interfaces/2/dev": "lo\n", "interfaces/2/nodev": "",
    "rlimits/rss": "32768\n", "rlimits/rss.min": "100\n", "rlimits/nproc": "150\n", "rlimits/as": "30K\n",
    "rlimits/nofile.hard": "1024\n", "rlimits/openfd": "5000\n", "ulimits/stack": "8192\n",
    "sched/fill-rate": "9\n", "sched/interval": "10\n", "sched/tokens": "100\n", "sched/tokens-min": "15\n",
    "sched/tokens-max": "500\n", "sched/prio-bias": "0\n",
    "dlimits/home/directory": "/srv/home\n", "dlimits/home/space_total": "4096\n",
    "dlimits/root/directory": "/vservers/vs\n", "dlimits/root/space_total": "1048576\n",
    "dlimits/root/inodes_total": "100000\n", "dlimits/root/reserved": "5\n",
    "fstab": "none /proc proc defaults 0 0\nnone /tmp tmpfs size=16m,mode=1777 0 0\n"
             "none /dev/pts devpts gid=5,mode=620 0 0\n/usr/share/misc /data none bind 0 0\n",
    "fstab.remote": "nfs:/home /home nfs defaults 0 0\n",
    "apps/init/mark": "default\n", "apps/init/style": "sysv\n", "apps/init/runlevel.start": "2\n",
    "apps/init/killseq": "INT 5 KILL\n", "apps/init/depends": "ldap\n", "apps/vunify/exclude": "/etc\n",
    "apps/pkgmgmt/internal": "", "apps/vshelper/disabled": "",
    "bcapabilities": "CAP_NET_RAW\nNET_ADMIN\nSYS_TIME\n~SYS_CHROOT\nDAC_OVERRIDE\n", "ccapabilities": "RAW_ICMP\n",
    "cflags": "virt_uptime\nvirt_mem\nsched_hard\n", "nflags": "hide_netif\n", "flags": "",
    "nice": "5\n", "personality": "linux32\n", "cpuset/cpus": "0-1\n", "cgroup/memory.limit_in_bytes": "1G\n",
    "sysctl/0/setting": "net.ipv4.ip_forward\n", "nonamespace": "",
    "scripts/pre-start": HOOK, "scripts/post-stop.d/10-x": HOOK, "scripts/initialize": HOOK,
    "scripts/pre-stop": "vattribute --set --xid 33\n",
    "firewall.conf": "enable\nallow from any,10.1.1.1 to icmp,tcp:80\nallow to any to icmp\n",
    "monitor.conf": "MONITOR_MAILTO=root\nRSS_THRESHOLD=90\n",
    "secret plan": "x\n",
}  # fmt: skip


def write(config: Path, trees: str, name: str = "vs", **instead: str | None) -> None:
    """Write the directory of the guest ``name`` into ``config``, which is its host's /etc/vservers.

    ``trees`` is where that host's trees are. ``instead``: other files, by their path; None: not that one.
    """
    for path, text in {**FILES, **instead}.items():
        if text is None:
            continue
        file = config / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if text == HOOK else 0o644)
    defaults = config / ".defaults"
    defaults.mkdir(exist_ok=True)
    if not (defaults / "vdirbase").is_symlink():
        (defaults / "vdirbase").symlink_to(trees)
    (config / name / "vdir").symlink_to(f"/etc/vservers/.defaults/vdirbase/{name}")
    (config / name / "run").symlink_to(f"/var/run/vservers/{name}")
