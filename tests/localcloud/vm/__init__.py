"""A vault as a real machine: Debian's kernel and packages under qemu, on an image built here."""
