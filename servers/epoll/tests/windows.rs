//! How long others wait beside windows that are under way.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

use tftpbench_serve::{ServeConfig, SocketUse};
use tftpbench_testclient::{Client, Folder, RRQ, TestServer, pattern, request};

/// Twenty windows of 65,535 blocks under way at once, and a client that reads block by block: for each block it waits for a
/// slice or two, not for one of each window.
#[test]
#[ignore = "needs a quiet machine: while a busy one keeps the client waiting, the server goes on; make bench runs it"]
fn a_block_waits_for_a_slice_of_one_window_and_not_of_all() {
    for sockets in [SocketUse::Shared, SocketUse::PerTransfer] {
        let root = Folder::new();
        root.put("large", &pattern(8 * 66_000, 1));
        root.put("f", &pattern(200 * 512, 2));
        let mut config = ServeConfig { sockets, grace_ns: 0, ..ServeConfig::new(root.path()) };
        (config.limits.windowsize, config.limits.window_bytes) = (65_535, u32::MAX);
        config.timing.timeout_ns = 60_000_000_000;
        config.timing.adaptive_floor_ns = None;
        let server = TestServer::with(tftpbench_epoll::run, config);
        let silent: Vec<_> = (0..20).map(|_| server.client()).collect();
        let ask = |client: &Client| {
            client.ask(&request(RRQ, "large", "octet", &[("blksize", "8"), ("windowsize", "65535")]));
            client.receive_oack().0
        };
        let tids: Vec<_> = silent.iter().map(ask).collect();
        for (client, tid) in silent.iter().zip(tids) {
            client.ack(tid, 0);
            client.receive_data();
        }
        assert_eq!(server.client().read("f", &[]), Ok(pattern(200 * 512, 2)));
        let summary = server.finish();
        // 20 windows are 1,310,700 DATA: with a slice of each a turn all of them would be out by now.
        let beside = summary.count("datagrams_out") - 201;
        assert!(beside < 201 * 3 * 130, "{beside} DATA for 201 blocks: {summary:?}");
    }
}
