"""What guests and their host use, told by the kernel: no program is run, nothing that a guest writes is believed."""
