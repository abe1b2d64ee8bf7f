"""A guest's packet filter, in its own namespace: ``model`` decides, a back end tells the kernel and reads it."""
