//! The behaviours of every bundled server, shown by this one over real sockets.

tftpbench_testclient::behaviours!(tftpbench_threads::run);
