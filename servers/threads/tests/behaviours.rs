//! The behaviours of every bundled server, shown by this one over real sockets; and which options it refuses.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

use tftpbench_net::Stop;
use tftpbench_serve::{ServeConfig, SocketUse};
use tftpbench_testclient::Folder;

tftpbench_testclient::behaviours!(tftpbench_threads::run);

/// Options of event loops, so that what did not happen is not measured.
#[test]
fn options_of_loops_are_refused_with_one_line() {
    let root = Folder::new();
    let refused = |change: &dyn Fn(&mut ServeConfig)| {
        let mut config = ServeConfig::new(root.path());
        change(&mut config);
        tftpbench_threads::run(config, Stop::new().unwrap(), |_| {}).unwrap_err().to_string()
    };
    assert!(
        refused(&|config| config.sockets = SocketUse::PerTransfer).starts_with("--sockets: is for epoll")
    );
    assert!(refused(&|config| config.batch = 1).starts_with("--batch: is for epoll"));
    assert!(refused(&|config| config.workers = 2).starts_with("--workers: is for epoll"));
}
