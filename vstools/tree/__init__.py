"""What is in a guest's tree: unpacked, installed, made its own, packed again. Never trusted."""
