"""The guest's network, made and owned by the host: ``plan`` decides, ``kernel`` acts."""
