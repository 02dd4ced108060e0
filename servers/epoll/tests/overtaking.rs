//! What one thread can know and thread-per-transfer cannot: in which order a client wrote to two sockets.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

use tftpbench_serve::{ServeConfig, SocketUse};
use tftpbench_testclient::{Folder, RRQ, TestServer, pattern, request};

/// From the same port and in the same bytes. Taken for a copy, it would stay unanswered until the client repeats it.
#[test]
fn the_same_request_right_behind_the_end_of_a_transfer_is_a_new_one() {
    ask_again_and_again(SocketUse::Shared, 64);
    ask_again_and_again(SocketUse::Shared, 1);
    ask_again_and_again(SocketUse::PerTransfer, 64);
}

fn ask_again_and_again(sockets: SocketUse, batch: usize) {
    let root = Folder::new();
    root.put("f", &pattern(700, 1));
    let config = ServeConfig { sockets, batch, ..ServeConfig::new(root.path()) };
    let server = TestServer::with(tftpbench_epoll::run, config);
    let client = server.client();
    for _ in 0..300 {
        client.ask(&request(RRQ, "f", "octet", &[("tsize", "0")]));
        let (tid, _) = client.receive_oack();
        client.error(tid);
        assert_eq!(client.read("f", &[("tsize", "0")]), Ok(pattern(700, 1)));
    }
    let summary = server.finish();
    assert_eq!(summary.count("duplicate_requests"), 0, "{summary:?}");
    assert_eq!(summary.count("transfers_completed"), 300, "{summary:?}");
}
