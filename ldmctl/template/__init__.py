"""A working plugin of each kind, to begin a new one from: `ldmctl plugins new KIND NAME`."""
