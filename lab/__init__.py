"""The lab: a pool of real Debian hosts in QEMU on the developer's own machine (see README.md)."""
