"""Start and end the QEMU process of a host."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import socket

from lab import ssh, trunk
from lab.command import LabError, run, succeeds, wait_until
from lab.host import MANAGEMENT, Host, HostFiles, running_pid, save
from lab.identity import FIRMWARE_FILE
from lab.image import Image
from lab.layer import Layer
from lab.places import Places
from lab.qmp import Qmp

DATA_SIZE = "12G"
# Emulated: a model old enough that the kernel uses nothing that is costly to emulate (5-level paging, SMAP), and
# new enough for wheels from PyPI (x86-64-v2).
CPU = {"kvm": "host", "tcg": "Nehalem"}
ACCELERATOR = {"kvm": "kvm", "tcg": "tcg,thread=multi,tb-size=256"}
PORT_TAKEN = "Could not set up host forwarding rule"
# The kernel's command line. Names of links are eth0 and eth1 (net.ifnames). Mitigations against a processor's faults
# are left out: an emulated one has none of the faults, and a test machine no neighbours.
KERNEL_LINE = "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=10 mitigations=off quiet"


def choose_accelerator(image: Image) -> str:
    """`kvm` where a kernel really boots with it within ten seconds, else `tcg` (software emulation).

    /dev/kvm may be there and fail, or be a nested one that is slower than emulation. The kernel finds no root
    disk, panics, resets; -no-reboot turns the reset into exit 0.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    argv = [
        "qemu-system-x86_64",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "256",
        "-nodefaults",
        "-display",
        "none",
    ]
    argv += ["-no-reboot", "-kernel", str(image.kernel), "-append", "panic=-1"]
    return "kvm" if succeeds(argv, timeout=10) else "tcg"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_root_disk(files: HostFiles, image: Image, layer: Layer | None) -> None:
    """Make the host's root disk as it is before its first boot: what is in the image, or in the layer on it."""
    below = ["-b", str(layer.root), "-F", "qcow2"] if layer else ["-b", str(image.root), "-F", "raw"]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *below, str(files.root)])


def make_data_disk(files: HostFiles, layer: Layer | None) -> None:
    """Make the host's data disk: empty, or what install.sh made on the builder's."""
    below = ["-b", str(layer.data), "-F", "qcow2", str(files.data)] if layer else [str(files.data), DATA_SIZE]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *below])


def trunk_nic(host: Host) -> dict[str, str]:
    """The trunk NIC as QEMU's -device and QMP's device_add both understand it."""
    return {
        "driver": "virtio-net-pci",
        "id": "nic-trunk",
        "netdev": "trunk",
        "addr": "0x4",
        "mac": f"52:54:00:99:01:{host.number:02x}",
    }


def command_line(
    places: Places, host: Host, files: HostFiles, *, with_trunk_nic: bool = False, snapshot: str = ""
) -> list[str]:
    """The whole QEMU command line of a host.

    A snapshot loads only into the devices that were there when it was made: without the trunk NIC. cache=unsafe leaves
    out only the sync to the machine's own disk: what a host flushed has reached the machine's kernel, so cutting the
    host's power loses what it had not flushed and nothing else.
    """
    image = Image(places.images / host.image)
    argv = ["qemu-system-x86_64", "-name", f"{host.name},process={host.name}", "-machine", "pc"]
    argv += ["-accel", ACCELERATOR[host.accelerator], "-cpu", CPU[host.accelerator]]
    argv += ["-smp", "1", "-m", str(host.memory), "-nodefaults", "-display", "none", "-rtc", "base=utc"]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", KERNEL_LINE]
    argv += ["-fw_cfg", f"name={FIRMWARE_FILE},file={files.identity}"]
    for name, path, slot in (("root", files.root, 5), ("data", files.data, 6)):
        argv += ["-drive", f"id={name},file={path},if=none,format=qcow2,cache=unsafe,discard=unmap"]
        argv += ["-device", f"virtio-blk-pci,drive={name},addr={slot:#x}"]
    user = f"user,id=mgmt,ipv6=off,net={MANAGEMENT}.0/24,host={MANAGEMENT}.2,dns={MANAGEMENT}.3"
    argv += ["-netdev", f"{user},hostfwd=tcp:127.0.0.1:{host.port}-{MANAGEMENT}.15:22"]
    argv += [
        "-device",
        f"virtio-net-pci,id=nic-mgmt,netdev=mgmt,addr=0x3,mac=52:54:00:99:00:{host.number:02x}",
    ]
    argv += ["-netdev", f"tap,id=trunk,ifname={places.tap(host.number)},script=no,downscript=no,vhost=off"]
    if with_trunk_nic:
        nic = trunk_nic(host)
        argv += ["-device", ",".join([nic.pop("driver"), *(f"{key}={value}" for key, value in nic.items())])]
    argv += ["-device", "virtio-rng-pci,addr=0x7"]
    argv += ["-chardev", f"file,id=console,path={files.console},append=on", "-serial", "chardev:console"]
    argv += ["-qmp", f"unix:{files.qmp},server=on,wait=off", "-pidfile", str(files.pid), "-daemonize"]
    argv += ["-loadvm", snapshot] if snapshot else []
    return argv


def start(places: Places, host: Host, *, with_trunk_nic: bool = False, snapshot: str = "") -> Host:
    """Switch on a host that is off; it boots, or goes on from the snapshot, on its own from here.

    Its ssh port may have been taken while it was off: then the host that is given back has another.
    """
    files = HostFiles.of(places, host.name)
    files.qmp.unlink(missing_ok=True)
    files.settled.unlink(missing_ok=True)
    for left in reversed(range(5)):
        try:
            run(command_line(places, host, files, with_trunk_nic=with_trunk_nic, snapshot=snapshot), timeout=120)
            break
        except LabError as error:
            if PORT_TAKEN not in error.hint or not left:
                raise
        host = dataclasses.replace(host, port=free_port())
        save(places, host)
        ssh.write_host_config(places, host)
    trunk.plug(places, places.tap(host.number))
    return host


def save_snapshot(files: HostFiles, name: str) -> None:
    """Save the whole machine, memory and disks, in its disks (QEMU's internal snapshots; disks.rst)."""
    with Qmp(files.qmp, timeout=300) as qmp:
        said = qmp.execute("human-monitor-command", command_line=f"savevm {name}")
    if said:
        raise LabError(f"no snapshot could be made: {str(said).strip()}")


def plug_trunk_nic(files: HostFiles, host: Host) -> None:
    """Plug in the trunk NIC while the host runs; its tap is there since QEMU started."""
    with Qmp(files.qmp) as qmp:
        qmp.execute("device_add", **trunk_nic(host))


def cut(files: HostFiles) -> None:
    """End a host's QEMU as a power failure would, and wait until it is gone."""
    pid = running_pid(files)
    if pid is None:
        return
    handle = os.pidfd_open(pid)
    try:
        if running_pid(files) == pid:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], 20)[0]:  # not before then are its tap, ports and disks free again
            raise LabError(f"QEMU process {pid} does not end")
    finally:
        os.close(handle)
    files.pid.unlink(missing_ok=True)


def shut_down(files: HostFiles, *, timeout: float) -> None:
    """Press a host's power button and wait until it has switched itself off."""
    if running_pid(files) is None:
        return
    with Qmp(files.qmp) as qmp:
        qmp.execute("system_powerdown")
    if not wait_until(lambda: running_pid(files) is None, timeout=timeout):
        raise LabError(f"still on {timeout:.0f} s after the power button", files.console_tail())


def set_link(files: HostFiles, nic: str, *, up: bool) -> None:
    """Pull or plug the cable of a NIC (`mgmt` or `trunk`): the host sees its carrier go or come."""
    with Qmp(files.qmp) as qmp:
        qmp.execute("set_link", name=f"nic-{nic}", up=up)
