//! Starting, being full, and stopping.

use std::net::UdpSocket;

use tftpbench_net::Stop;
use tftpbench_serve::{ServeConfig, ServeError};

use crate::client::{Client, RRQ, WRQ, pattern, request};
use crate::server::{Folder, Run, TestServer, config};

/// With an ERROR, never with silence; and only until a place is free.
pub fn transfers_beyond_the_bound_are_refused(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 1));
    let mut config = config(&root);
    config.max_transfers = 3;
    let server = TestServer::with(run, config);
    let served: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let mut tids = Vec::new();
    for client in &served {
        client.ask(&request(RRQ, "f", "octet", &[]));
        tids.push(client.receive_data().0);
    }
    for _ in 0..10 {
        assert_eq!(server.client().read("f", &[]).unwrap_err().code, 0);
    }
    served[0].error(tids[0]);
    // The ERROR and the next request may overtake each other on their ways through the server.
    let freed = (0..100_000).any(|_| server.client().read("f", &[]).is_ok());
    assert!(freed, "the place stays taken");
    for n in [1, 2] {
        served[n].ack(tids[n], 1);
        assert_eq!(served[n].receive_data().1, 2);
        served[n].ack(tids[n], 2);
    }
    let summary = server.finish();
    assert_eq!(summary.count("transfers_started"), 4, "{summary:?}");
    assert!(summary.count("refused") >= 10, "{summary:?}");
}

/// Within their grace; and the server is gone as soon as the last has ended.
pub fn a_stop_lets_transfers_finish_and_refuses_new_ones(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 2));
    let mut config = config(&root);
    config.grace_ns = 60_000_000_000;
    let server = TestServer::with(run, config);
    let (reader, writer) = (server.client(), server.client());
    reader.ask(&request(RRQ, "f", "octet", &[]));
    let (tid, _, _) = reader.receive_data();
    // An upload that has ended, and whose last ACK might be asked for again, is not waited for.
    writer.write("new", b"x", &[]).unwrap();
    server.request_stop();
    // The stop and the request may overtake each other.
    let refused = (0..100_000).find_map(|_| server.client().read("f", &[]).err());
    assert_eq!(refused.map(|denied| denied.code), Some(0));
    reader.ack(tid, 1);
    assert_eq!(reader.receive_data().1, 2);
    reader.ack(tid, 2);
    let summary = server.wait();
    assert_eq!(summary.count("transfers_interrupted"), 0, "{summary:?}");
}

/// With an ERROR to each.
pub fn a_stop_ends_transfers_when_their_grace_is_over(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 3));
    let mut config = config(&root);
    config.grace_ns = 10_000_000;
    let server = TestServer::with(run, config);
    interrupted(server, |_| {});
}

/// Grace or not.
pub fn a_second_stop_ends_transfers_at_once(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 4));
    let mut config = config(&root);
    config.grace_ns = 3_600_000_000_000;
    let server = TestServer::with(run, config);
    interrupted(server, TestServer::request_stop);
    assert_eq!(root.names(), ["f"]);
}

/// Naming the address and the mend.
pub fn a_taken_port_is_one_clear_line(run: Run) {
    let root = Folder::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = config(&root);
    config.address = taken.local_addr().unwrap();
    let line = failure(run, config.clone());
    assert!(line.contains(&config.address.to_string()) && line.contains("--port"), "{line}");
}

/// Naming the root and the mend.
pub fn a_missing_root_is_one_clear_line(run: Run) {
    let root = Folder::new();
    root.put("file", b"");
    for name in ["absent", "file"] {
        let mut config = config(&root);
        config.root = root.file(name);
        let line = failure(run, config);
        assert!(line.contains(root.file(name).to_str().unwrap()), "{line}");
    }
}

/// Naming both numbers.
pub fn too_many_transfers_for_the_open_files_is_one_clear_line(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    config.max_transfers = 1 << 40;
    let line = failure(run, config);
    assert!(line.contains("--max-transfers 1099511627776") && line.contains("ulimit"), "{line}");
}

/// It only prints; where it is on, everything else stays as it was.
pub fn the_packet_log_changes_nothing(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    config.log_packets = true;
    let server = TestServer::with(run, config);
    server.client().write("f", b"seen", &[("blksize", "100")]).unwrap();
    assert_eq!(server.client().read("f", &[]), Ok(b"seen".to_vec()));
}

/// A reader and a writer under way, and the ERROR that ends each.
fn interrupted(server: TestServer, abort: impl FnOnce(&TestServer)) {
    let (reader, writer) = (server.client(), server.client());
    reader.ask(&request(RRQ, "f", "octet", &[]));
    reader.receive_data();
    writer.ask(&request(WRQ, "new", "octet", &[]));
    writer.receive_ack();
    server.request_stop();
    abort(&server);
    assert_eq!(reader.receive_error(), 0);
    assert_eq!(writer.receive_error(), 0);
    let summary = server.wait();
    assert_eq!(summary.count("transfers_interrupted"), 2, "{summary:?}");
}

fn failure(run: Run, config: ServeConfig) -> String {
    let failed: ServeError = run(config, Stop::new().unwrap(), Box::new(|_| {})).unwrap_err();
    let line = failed.to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}
