//! The behaviours of every bundled server, shown by this one over real sockets: as it is, and with each option that
//! changes how it goes about them.

/// One list for one change of the configuration.
macro_rules! list {
    ($name:ident, |$config:ident| $change:expr) => {
        mod $name {
            use std::net::SocketAddr;
            use tftpbench_net::Stop;
            use tftpbench_serve::{ServeConfig, ServeError, SocketUse, Summary};

            fn run(
                mut $config: ServeConfig,
                stop: Stop,
                ready: impl FnOnce(SocketAddr),
            ) -> Result<Summary, ServeError> {
                $change;
                tftpbench_epoll::run($config, stop, ready)
            }

            tftpbench_testclient::behaviours!(super::run);
        }
    };
}

list!(shared, |config| config.sockets = SocketUse::Shared);
list!(per_transfer, |config| config.sockets = SocketUse::PerTransfer);
list!(unbatched, |config| (config.sockets, config.batch) = (SocketUse::Shared, 1));
list!(per_transfer_unbatched, |config| (config.sockets, config.batch) = (SocketUse::PerTransfer, 1));
list!(two_workers, |config| (config.sockets, config.workers) = (SocketUse::Shared, 2));
