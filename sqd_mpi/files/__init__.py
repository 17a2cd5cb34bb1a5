"""Everything that is stored; the door to h5py."""
