//! Whole transfers: sizes, options, modes, address families.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use tftpbench_proto::Limits;

use crate::client::{Client, RRQ, WRQ, pattern, request};
use crate::folder::Folder;
use crate::server::{Run, TestServer, config};

/// RFC 1350 section 6: the last block is the first that is short, and empty after an exact multiple.
pub fn sizes_around_the_block_border_survive_both_ways(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    for size in [0, 1, 511, 512, 513, 1023, 1024, 100_000] {
        round_trip(&server, &root, &pattern(size, size as u32), &format!("{size}"), &[]);
    }
    let summary = server.finish();
    assert_eq!(summary.count("transfers_completed"), 16, "{summary:?}");
}

/// Block numbers roll over to 0, or to 1 where that was agreed.
pub fn files_past_65535_blocks_survive_both_ways(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let file = pattern(8 * 65_600 + 3, 1);
    for rollover in ["0", "1"] {
        let options = [("blksize", "8"), ("windowsize", "32"), ("rollover", rollover)];
        round_trip(&server, &root, &file, rollover, &options);
    }
}

/// RFC 2348: 8 to 65464.
pub fn every_blksize_survives_both_ways(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    for (blksize, size) in [("8", 1001), ("512", 5000), ("1428", 14_280), ("65464", 200_000)] {
        round_trip(&server, &root, &pattern(size, 2), blksize, &[("blksize", blksize)]);
    }
}

/// RFC 2348 and 7440: the server may answer less.
pub fn a_blksize_above_the_limit_is_lowered(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(3000, 3));
    let mut config = config(&root);
    config.limits = Limits { blksize: 1024, windowsize: 4 };
    let server = TestServer::with(run, config);
    let options = [("blksize", "1468"), ("windowsize", "16")];
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &options));
    let (tid, mut granted) = client.receive_oack();
    granted.sort();
    assert_eq!(granted, [pair("blksize", "1024"), pair("windowsize", "4")]);
    client.error(tid);
    assert_eq!(server.client().read("f", &options), Ok(pattern(3000, 3)));
}

/// RFC 7440 section 4: one ACK a window.
pub fn a_window_is_acknowledged_once(run: Run) {
    let root = Folder::new();
    let file = pattern(512 * 10 + 5, 4);
    let server = TestServer::start(run, &root);
    round_trip(&server, &root, &file, "f", &[("windowsize", "4")]);
    let summary = server.finish();
    // Read: OACK and 11 DATA out. Write: OACK and 3 ACKs out.
    assert_eq!(summary.count("datagrams_out"), 12 + 4, "{summary:?}");
    assert_eq!(summary.count("retransmissions"), 0, "{summary:?}");
}

/// RFC 7440 allows up to 65,535; more than one batch or one turn of a loop can hold.
pub fn a_window_of_hundreds_of_blocks_survives_both_ways(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    config.limits.windowsize = 300;
    let server = TestServer::with(run, config);
    let options = [("blksize", "8"), ("windowsize", "65535")];
    round_trip(&server, &root, &pattern(8 * 1000, 8), "f", &options);
    let summary = server.finish();
    // Out: OACK and 1001 DATA; OACK and an ACK each window.
    assert_eq!(summary.count("datagrams_out"), 1002 + 5, "{summary:?}");
}

/// RFC 2349: the real size to a reader, the announced one back to a writer.
pub fn tsize_tells_and_echoes_the_size(run: Run) {
    let root = Folder::new();
    root.put("full", &pattern(1234, 5));
    root.put("empty", b"");
    let server = TestServer::start(run, &root);
    for (opcode, name, asked, told) in
        [(RRQ, "full", "0", "1234"), (RRQ, "empty", "0", "0"), (WRQ, "new", "777", "777")]
    {
        let client = server.client();
        client.ask(&request(opcode, name, "octet", &[("tsize", asked)]));
        let (tid, granted) = client.receive_oack();
        assert_eq!(granted, [pair("tsize", told)], "{name}");
        client.error(tid);
    }
}

/// RFC 2349: echoed unchanged, and in force instead of the server's own interval.
pub fn the_timeout_option_is_echoed_and_honoured(run: Run) {
    let root = Folder::new();
    root.put("f", b"x");
    let mut config = config(&root);
    config.timing.timeout_ns = 100_000_000;
    let server = TestServer::with(run, config);
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &[("timeout", "1")]));
    let (tid, granted) = client.receive_oack();
    assert_eq!(granted, [pair("timeout", "1")]);
    let waiting_since = Instant::now();
    client.receive_oack();
    let waited = waiting_since.elapsed();
    assert!(waited > Duration::from_millis(900), "sent again after {waited:?}");
    client.error(tid);
}

/// RFC 2347: what is unknown, out of range or no number is left out; where nothing is left, there is no OACK.
pub fn options_that_cannot_be_granted_are_left_out(run: Run) {
    let root = Folder::new();
    root.put("f", b"short");
    let server = TestServer::start(run, &root);
    let hopeless =
        [("blksize", "7"), ("windowsize", "0"), ("timeout", "256"), ("multicast", ""), ("tsize", "-1")];
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &hopeless));
    let (tid, block, payload) = client.receive_data();
    assert_eq!((block, &payload[..]), (1, &b"short"[..]));
    client.ack(tid, 1);
    let mixed = [("blksize", "65465"), ("utimeout", "5"), ("tsize", "0")];
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &mixed));
    let (tid, granted) = client.receive_oack();
    assert_eq!(granted, [pair("tsize", "5")]);
    client.error(tid);
}

/// RFC 1350 section 5 and RFC 2347.
pub fn names_of_modes_and_options_may_be_in_any_case(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(2000, 6));
    let server = TestServer::start(run, &root);
    assert_eq!(server.client().read_as("OcTeT", "f", &[("BLKsize", "1000")]), Ok(pattern(2000, 6)));
}

/// RFC 764: LF travels as CR LF, CR as CR NUL, also where a block ends between the two.
pub fn netascii_survives_both_ways(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    for text in ["", "plain", "one\ntwo\r\nthree\r", &"\n\r".repeat(1000), &"0123456789\n".repeat(10_000)] {
        let wire = text.replace('\r', "\r\0").replace('\n', "\r\n");
        // The order matters: the CRs of CR LF are not in the text.
        let wire = wire.as_bytes();
        root.put("text", text.as_bytes());
        for blksize in ["8", "512"] {
            let options = [("blksize", blksize), ("tsize", "0")];
            let got = server.client().read_as("netascii", "text", &options).unwrap();
            assert_eq!(got, wire, "{text:?} at {blksize}");
            let name = format!("{}-{blksize}", text.len());
            server.client().write_as("netascii", &name, wire, &options[..1]).unwrap();
            assert_eq!(root.contents(&name), text.as_bytes(), "{text:?} at {blksize}");
        }
    }
}

/// A wildcard IPv6 socket serves both families; one bound to ::1 serves IPv6.
pub fn ipv6_and_mapped_ipv4_are_served(run: Run) {
    if let Err(error) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        eprintln!("skipped: no IPv6 here ({error})");
        return;
    }
    let root = Folder::new();
    let mut config = config(&root);
    config.address = (Ipv6Addr::LOCALHOST, 0).into();
    let server = TestServer::with(run, config.clone());
    round_trip(&server, &root, &pattern(5000, 7), "six", &[("blksize", "1024")]);
    config.address = (Ipv6Addr::UNSPECIFIED, 0).into();
    let server = TestServer::with(run, config);
    let port = server.address.port();
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()] {
        assert_eq!(Client::new(address).read("six", &[]), Ok(pattern(5000, 7)), "{address}");
    }
}

/// Every byte of every one.
pub fn many_transfers_run_at_once(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let file = |n: u32| pattern(20_000 + n as usize, n);
    thread::scope(|scope| {
        for n in 0..16 {
            let server = &server;
            scope.spawn(move || {
                let name = format!("{n}");
                server.client().write(&name, &file(n), &[]).unwrap();
                assert_eq!(server.client().read(&name, &[]), Ok(file(n)));
            });
        }
    });
    let summary = server.finish();
    assert_eq!(summary.count("transfers_completed"), 32, "{summary:?}");
}

/// A client that loops over one file from one port asks the same thing again, and is no duplicate.
pub fn one_port_may_ask_again_and_again(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    config.overwrite = true;
    let server = TestServer::with(run, config);
    let client = server.client();
    for n in 0..20 {
        client.write("f", &pattern(1500, n), &[]).unwrap();
        assert_eq!(client.read("f", &[]), Ok(pattern(1500, n)));
    }
}

fn round_trip(server: &TestServer, root: &Folder, file: &[u8], name: &str, options: &[(&str, &str)]) {
    server.client().write(name, file, options).unwrap();
    assert!(root.contents(name) == file, "{name} is not as it was written");
    assert!(server.client().read(name, options).unwrap() == file, "{name} is not as it was read");
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.into(), value.into())
}
