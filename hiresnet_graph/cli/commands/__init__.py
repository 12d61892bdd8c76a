"""The commands of `hrg`, one file each."""
