"""What is put into guests, cross-built on the host: one source, one compiler, the same flags."""
