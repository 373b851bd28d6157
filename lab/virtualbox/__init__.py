"""VirtualBox: the host's own, or Debian's userland in a root that is thrown away."""
