"""A working plugin of each kind, to start a new one from: `ldmctl plugins new KIND NAME`."""
