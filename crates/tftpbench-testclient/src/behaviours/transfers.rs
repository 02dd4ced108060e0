//! Whole transfers: sizes, options, modes, address families; and what well-known clients do that the RFCs don't draw.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use tftpbench_proto::{Limits, Packet};

use crate::client::{A_MOMENT, Client, RRQ, WRQ, pattern, request};
use crate::server::{Folder, Run, TestServer, config, timing};

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
        // Neither 65,535 nor 65,536 is a multiple of 60: the number rolls over inside a window.
        let options = [("blksize", "8"), ("windowsize", "60"), ("rollover", rollover)];
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

/// Blocks that divide nothing and windows from lock-step to longer than the file, over both families.
pub fn every_blksize_in_every_window_survives_both_ways(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    config.limits = Limits::NONE;
    let file = pattern(60_007, 9);
    for ip in loopbacks() {
        config.address = (ip, 0).into();
        let server = TestServer::with(run, config.clone());
        for blksize in ["199", "512", "1468", "9001"] {
            for windowsize in ["1", "4", "64", "256"] {
                let name = format!("{ip}-{blksize}-{windowsize}");
                let options = [("blksize", blksize), ("windowsize", windowsize)];
                round_trip(&server, &root, &file, &name, &options);
            }
        }
    }
}

/// RFC 1350 section 6: the empty block behind it is a window of its own.
pub fn a_file_of_whole_windows_ends_with_an_empty_block(run: Run) {
    let root = Folder::new();
    for windows in [1, 3] {
        let server = TestServer::start(run, &root);
        let file = pattern(512 * 4 * windows, 10);
        round_trip(&server, &root, &file, &format!("{windows}"), &[("windowsize", "4")]);
        let summary = server.finish();
        // Read: OACK and DATA out. Write: OACK and ACKs out.
        let due = (1 + 4 * windows + 1) + (1 + windows + 1);
        assert_eq!(summary.count("datagrams_out"), due as u64, "{summary:?}");
    }
}

/// One empty block, whatever else was agreed.
pub fn an_empty_file_survives_both_ways_with_any_options(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let options = [("tsize", "0"), ("blksize", "1428"), ("windowsize", "16"), ("timeout", "2")];
    for count in 0..=options.len() {
        round_trip(&server, &root, b"", &format!("{count}"), &options[..count]);
    }
}

/// RFC 2348 and 7440: the server may answer less.
pub fn a_blksize_above_the_limit_is_lowered(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(3000, 3));
    let mut config = config(&root);
    config.limits = Limits { blksize: 1024, windowsize: 4, ..Limits::NONE };
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
    for (opcode, name, asked, answered) in
        [(RRQ, "full", "0", "1234"), (RRQ, "empty", "0", "0"), (WRQ, "new", "777", "777")]
    {
        let client = server.client();
        client.ask(&request(opcode, name, "octet", &[("tsize", asked)]));
        let (tid, granted) = client.receive_oack();
        assert_eq!(granted, [pair("tsize", answered)], "{name}");
        client.error(tid);
    }
}

/// Whatever the server does about silent clients: where nothing is lost, no side waits for a timer. The client has
/// none.
pub fn no_timer_runs_out_where_nothing_is_lost(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    for windowsize in [16, 64] {
        for windows in [1, 2, 3, 5, 8, 13, 33, 100] {
            for blocks in [windows * windowsize - 1, windows * windowsize] {
                let name = format!("{windowsize}-{blocks}");
                let options = [("blksize", "8"), ("windowsize", &windowsize.to_string())];
                round_trip(&server, &root, &pattern(8 * blocks, 11), &name, &options);
            }
        }
    }
    let summary = server.finish();
    assert_eq!((summary.count("timeouts"), summary.count("retransmissions")), (0, 0), "{summary:?}");
}

/// What a window may hold is bounded, and the OACK says so.
pub fn a_window_above_the_limit_is_lowered(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 1));
    let server = TestServer::start(run, &root);
    for (blksize, granted) in [("512", "64"), ("2048", "64"), ("8192", "16"), ("65464", "2")] {
        for (opcode, name) in [(RRQ, "f"), (WRQ, "new")] {
            let client = server.client();
            client.ask(&request(opcode, name, "octet", &[("blksize", blksize), ("windowsize", "65535")]));
            let (tid, options) = client.receive_oack();
            assert_eq!(options, [pair("blksize", blksize), pair("windowsize", granted)]);
            client.error(tid);
        }
    }
}

/// RFC 2349: echoed unchanged, and in force instead of the server's own interval as soon as the client has answered.
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
    client.ack(tid, 0);
    client.receive_data();
    let waiting_since = Instant::now();
    client.receive_data();
    let waited = waiting_since.elapsed();
    assert!(waited > Duration::from_millis(900), "sent again after {waited:?}");
    client.error(tid);
}

/// RFC 2349 leaves open what the size of a text is; ours is that of its wire form, which a client can count.
pub fn tsize_of_a_text_counts_what_crosses_the_wire(run: Run) {
    let root = Folder::new();
    root.put("text", b"one\ntwo\r\n");
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(RRQ, "text", "netascii", &[("tsize", "0")]));
    let (tid, granted) = client.receive_oack();
    assert_eq!(granted, [pair("tsize", "12")]);
    client.ack(tid, 0);
    assert_eq!(client.receive_data().2, b"one\r\ntwo\r\0\r\n");
    client.ack(tid, 1);
}

/// The bounds themselves are granted, the numbers next to them are not.
pub fn every_option_has_the_bounds_of_its_rfc(run: Run) {
    let root = Folder::new();
    root.put("f", b"short");
    let mut config = config(&root);
    config.limits = Limits::NONE;
    let server = TestServer::with(run, config);
    for (name, granted, left_out) in [
        ("blksize", ["8", "65464"], ["7", "65465"]),
        ("windowsize", ["1", "65535"], ["0", "65536"]),
        ("timeout", ["1", "255"], ["0", "256"]),
    ] {
        for value in granted {
            let client = server.client();
            client.ask(&request(RRQ, "f", "octet", &[(name, value)]));
            let (tid, options) = client.receive_oack();
            assert_eq!(options, [pair(name, value)]);
            client.error(tid);
        }
        for value in left_out {
            let client = server.client();
            client.ask(&request(RRQ, "f", "octet", &[(name, value)]));
            let (tid, block, payload) = client.receive_data();
            assert_eq!((block, &payload[..]), (1, &b"short"[..]), "{name} {value}");
            client.ack(tid, 1);
        }
    }
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
    let client = server.client();
    client.ask(&request(WRQ, "new", "octet", &hopeless));
    let (tid, block) = client.receive_ack();
    assert_eq!(block, 0);
    client.error(tid);
    // Among them what other servers know: tftp-hpa, its next version, Windows.
    let mixed = [
        ("blksize", "65465"),
        ("utimeout", "500000"),
        ("blksize2", "1024"),
        ("cookie", "c"),
        ("mstfwindow", "31416"),
        ("", ""),
        ("tsize", "0"),
    ];
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

/// RFC 2349 lets a server decline: to count it would be to read a file of any size within one request.
pub fn a_long_text_is_served_without_its_size(run: Run) {
    let root = Folder::new();
    let text = "0123456789\n".repeat(110_000);
    root.put("text", text.as_bytes());
    let server = TestServer::start(run, &root);
    let client = server.client();
    let options = [("tsize", "0"), ("blksize", "1428"), ("windowsize", "16")];
    client.ask(&request(RRQ, "text", "netascii", &options));
    let (tid, granted) = client.receive_oack();
    assert_eq!(granted, [pair("blksize", "1428"), pair("windowsize", "16")]);
    client.error(tid);
    let read = server.client().read_as("netascii", "text", &options).unwrap();
    assert!(read == text.replace('\n', "\r\n").as_bytes());
}

/// Wherever in the file the window that is sent again begins.
pub fn blocks_of_a_text_are_the_same_when_they_are_sent_again(run: Run) {
    let root = Folder::new();
    let text = "01234\n".repeat(3000);
    root.put("text", text.as_bytes());
    let wire = text.replace('\n', "\r\n").into_bytes();
    let last = wire.len() as u16 / 512 + 1;
    for windowsize in [4, 7, 64] {
        let server = TestServer::start(run, &root);
        let client = server.client();
        client.ask(&request(RRQ, "text", "netascii", &[("windowsize", &windowsize.to_string())]));
        let (tid, _) = client.receive_oack();
        let mut acked = 0;
        while acked < last {
            // The window, and once more what of it is said to be lost, which is all but its first block.
            for lost_from in [acked, acked + 1] {
                let window = lost_from + 1..=last.min(lost_from + windowsize);
                if lost_from < last {
                    client.ack(tid, lost_from);
                }
                for block in window {
                    let (_, number, payload) = client.receive_data();
                    let start = (usize::from(block) - 1) * 512;
                    assert_eq!(number, block, "in {windowsize}");
                    assert!(payload == wire[start..wire.len().min(start + 512)], "{block} in {windowsize}");
                }
            }
            acked = last.min(acked + 1 + windowsize);
        }
        client.ack(tid, last);
        assert_eq!(server.finish().count("transfers_completed"), 1);
    }
}

/// RFC 764: LF travels as CR LF, CR as CR NUL, also where a block or a window ends between the two.
pub fn netascii_survives_both_ways(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    // The odd byte in front makes every even blksize cut pairs.
    let cut = format!("x{}", "\n\r".repeat(1000));
    for text in ["", "plain", "one\ntwo\r\nthree\r", &cut, &"0123456789\n".repeat(10_000)] {
        let wire = text.replace('\r', "\r\0").replace('\n', "\r\n");
        // The order matters: the CRs of CR LF are not in the text.
        let wire = wire.as_bytes();
        root.put("text", text.as_bytes());
        for (blksize, windowsize) in [("8", "4"), ("512", "1"), ("512", "4")] {
            let options = [("blksize", blksize), ("windowsize", windowsize)];
            let got = server.client().read_as("netascii", "text", &options).unwrap();
            assert_eq!(got, wire, "{text:?} at {options:?}");
            let name = format!("{}-{blksize}-{windowsize}", text.len());
            server.client().write_as("netascii", &name, wire, &options).unwrap();
            assert_eq!(root.contents(&name), text.as_bytes(), "{text:?} at {options:?}");
        }
    }
}

/// A wildcard IPv6 socket serves both families; one bound to ::1 serves IPv6.
pub fn ipv6_and_mapped_ipv4_are_served(run: Run) {
    if loopbacks().len() < 2 {
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

/// A client that loops over one file from one port asks the same thing again, and is no duplicate. Its last ACK counts,
/// however close its next request follows.
pub fn one_port_may_ask_again_and_again(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    config.overwrite = true;
    let server = TestServer::with(run, config);
    let client = server.client();
    for n in 0..200 {
        client.write("f", &pattern(1500, n), &[]).unwrap();
        assert_eq!(client.read("f", &[]), Ok(pattern(1500, n)));
    }
    let summary = server.finish();
    assert_eq!(summary.count("transfers_completed"), 400, "{summary:?}");
}

/// Size, the blksize that holds anyway, a timeout, and a slash in front of the name; with `--tftp-no-options`, nothing.
pub fn curl_is_granted_all_that_it_asks_for(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(700, 1));
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(RRQ, "/f", "octet", &[("tsize", "0"), ("blksize", "512"), ("timeout", "6")]));
    let (tid, mut granted) = client.receive_oack();
    granted.sort();
    let all = [("blksize", "512"), ("timeout", "6"), ("tsize", "700")];
    assert_eq!(granted, all.map(|(name, value)| (name.into(), value.into())));
    client.ack(tid, 0);
    for (block, part) in [(1, 0..512), (2, 512..700)] {
        assert_eq!(client.receive_data(), (tid, block, pattern(700, 1)[part].to_vec()));
        client.ack(tid, block);
    }
    assert_eq!(server.client().read("/f", &[]), Ok(pattern(700, 1)));
}

/// UEFI firmware takes the size from the OACK, refuses with ERROR 8, and asks again from another port.
pub fn a_refused_oack_ends_the_transfer_unanswered(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(9000, 2));
    let server = TestServer::start(run, &root);
    let options = [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")];
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &options));
    let (tid, granted) = client.receive_oack();
    assert!(granted.contains(&("tsize".into(), "9000".into())), "{granted:?}");
    client.send(tid, b"\0\x05\0\x08refused\0");
    assert_eq!(client.try_receive(A_MOMENT), None);
    assert_eq!(server.client().read("f", &options[1..]), Ok(pattern(9000, 2)));
    let summary = server.finish();
    assert_eq!(summary.count("transfers_failed"), 1, "{summary:?}");
    assert_eq!(summary.count("transfers_completed"), 1, "{summary:?}");
}

/// From the same port, too, and without a moment's wait: whether it asks for something else, or for the same.
pub fn a_request_right_behind_a_refused_oack_is_answered(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(9000, 2));
    let mut config = config(&root);
    // Nothing is sent again while the test lasts, so what is answered was answered at once.
    config.timing = timing(60_000_000_000);
    config.grace_ns = 0;
    let server = TestServer::with(run, config);
    let (size, file) = ([("tsize", "0")], [("tsize", "0"), ("blksize", "1468")]);
    for next in [&file[..], &size[..]] {
        let client = server.client();
        for probe in 0..40 {
            client.ask(&request(RRQ, "f", "octet", &size));
            let (tid, _) = client.receive_oack();
            client.send(tid, b"\0\x05\0\x08refused\0");
            client.ask(&request(RRQ, "f", "octet", next));
            let answer = client.try_receive(Duration::from_secs(2));
            let answer = answer.unwrap_or_else(|| panic!("probe {probe}: {next:?} is not answered"));
            assert!(matches!(answer.packet(), Packet::Oack(_)), "probe {probe}: {:?}", answer.packet());
            // Not by the transfer that was ended.
            client.ack(answer.tid, 0);
            assert_eq!(client.receive_data().1, 1, "probe {probe} of {next:?}");
            client.send(answer.tid, b"\0\x05\0\x08refused\0");
        }
    }
}

/// The loopback addresses that this machine has.
fn loopbacks() -> Vec<IpAddr> {
    let mut all = vec![Ipv4Addr::LOCALHOST.into()];
    match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => all.push(Ipv6Addr::LOCALHOST.into()),
        Err(error) => eprintln!("skipped: no IPv6 here ({error})"),
    }
    all
}

fn round_trip(server: &TestServer, root: &Folder, file: &[u8], name: &str, options: &[(&str, &str)]) {
    server.client().write(name, file, options).unwrap();
    assert!(root.contents(name) == file, "{name} is not as it was written");
    assert!(server.client().read(name, options).unwrap() == file, "{name} is not as it was read");
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.into(), value.into())
}
