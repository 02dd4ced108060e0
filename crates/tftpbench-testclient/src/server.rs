//! One running server under test, and a folder for it to serve that lives as long as a test.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tftpbench_net::Stop;
use tftpbench_proto::{Backoff, Timing};
use tftpbench_serve::{ServeConfig, ServeError, Summary};

use crate::client::Client;

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

/// Removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new, empty one.
    pub fn new() -> Folder {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tftpbench-test-{}-{serial}", process::id()));
        fs::create_dir(&path).unwrap();
        Folder { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file in it is, or would be.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Puts a file into it, and the folders above it.
    pub fn put(&self, name: impl AsRef<Path>, contents: &[u8]) {
        let file = self.file(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, contents).unwrap();
    }

    /// What a file in it holds now.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }

    /// Names of everything in it, hidden things too, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Default for Folder {
    fn default() -> Folder {
        Folder::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
