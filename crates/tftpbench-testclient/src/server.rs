//! One running server under test.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tftpbench_net::Stop;
use tftpbench_proto::{Backoff, Timing};
use tftpbench_serve::{ServeConfig, ServeError, Summary};

use crate::client::Client;
use crate::folder::Folder;

/// How a server announces its address.
pub type Ready = Box<dyn FnOnce(SocketAddr) + Send>;

/// A server's `run`.
pub type Run = fn(ServeConfig, Stop, Ready) -> Result<Summary, ServeError>;

/// A server on its own thread and a free port. Dropped, it stops at once, and its counters must add up.
#[derive(Debug)]
pub struct TestServer {
    /// Where requests go.
    pub address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<Result<Summary, ServeError>>>,
}

/// A configuration for tests: writing is on, and nothing is sent again within two seconds.
pub(crate) fn config(root: &Folder) -> ServeConfig {
    let mut config = ServeConfig::new(root.path());
    config.write = true;
    config.max_transfers = 64;
    config.timing = timing(2_000_000_000);
    config
}

/// Three retries at a constant interval.
pub(crate) fn timing(timeout_ns: u64) -> Timing {
    Timing {
        timeout_ns,
        retries: 3,
        backoff: Backoff::Constant,
        adaptive_floor_ns: None,
        timeout_max_ns: 8_000_000_000,
    }
}

impl TestServer {
    /// Serves `root` as `config` does.
    pub fn start(run: Run, root: &Folder) -> TestServer {
        TestServer::with(run, config(root))
    }

    /// Serves by a configuration of the test's own.
    pub fn with(run: Run, config: ServeConfig) -> TestServer {
        let stop = Stop::new().unwrap();
        let (sender, receiver) = mpsc::channel();
        let its_stop = stop.clone();
        let thread = thread::spawn(move || {
            run(config, its_stop, Box::new(move |address| sender.send(address).unwrap()))
        });
        match receiver.recv_timeout(Duration::from_secs(10)) {
            Ok(address) => TestServer { address, stop, thread: Some(thread) },
            Err(_) => panic!("the server is not ready: {:?}", thread.join()),
        }
    }

    /// A client of it on a port of its own.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Asks it to stop, once more.
    pub fn request_stop(&self) {
        self.stop.request();
    }

    /// Its counters, once it has stopped; asks it to if it was not asked.
    pub fn finish(mut self) -> Summary {
        self.stop.request();
        self.join()
    }

    /// Its counters, once it has stopped by itself.
    pub fn wait(mut self) -> Summary {
        self.join()
    }

    fn join(&mut self) -> Summary {
        let summary = self.thread.take().unwrap().join().unwrap().unwrap();
        let count = |name| summary.count(name);
        let ended = count("transfers_completed")
            + count("transfers_failed")
            + count("transfers_timed_out")
            + count("transfers_interrupted");
        assert_eq!(count("transfers_started"), ended, "{summary:?}");
        summary
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.thread.is_none() {
            return;
        }
        self.stop.request();
        self.stop.request();
        // A failed test has its own report.
        if !thread::panicking() {
            self.join();
        }
    }
}
