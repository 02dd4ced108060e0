//! Golden packets: a datagram under each `[name]` of `tests/golden.txt`, named after the case or the defect. `#` says
//! why it is there, `=` how it is displayed, the rest is its bytes in hex.
//!
//! And the fuzz targets' bodies on seeded random input, so that they hold without a fuzzer, too.

mod simulation;

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a crate of its own for the fuzzer")]
mod bodies;

use std::collections::BTreeMap;

use simulation::Random;
use tftpbench_proto::{
    Decoded, ErrorCode, Malformed, Mode, Operation, Options, Packet, Rollover, emit_ack, emit_data_header,
    emit_error, emit_oack, emit_request,
};

struct Golden {
    decoded: String,
    bytes: Vec<u8>,
}

fn golden() -> BTreeMap<String, Golden> {
    let mut golden = BTreeMap::new();
    for section in include_str!("golden.txt").split("\n\n") {
        let Some((name, text)) = section.strip_prefix('[').and_then(|rest| rest.split_once("]\n")) else {
            panic!("{section:?} begins with no [name]")
        };
        assert!(golden.insert(name.to_string(), read(text)).is_none(), "{name} is there twice");
    }
    golden
}

fn read(text: &str) -> Golden {
    let decoded = text.lines().find_map(|line| line.strip_prefix("= ")).unwrap_or_default().to_string();
    let hex = text.lines().filter(|line| !line.starts_with(['#', '='])).flat_map(str::split_whitespace);
    let bytes = hex.map(|pair| u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{pair} is no byte")));
    Golden { decoded, bytes: bytes.collect() }
}

#[test]
fn every_golden_packet_displays_as_it_says() {
    let golden = golden();
    assert!(golden.len() > 30);
    for (name, Golden { decoded, bytes }) in golden {
        assert_eq!(Decoded(&bytes).to_string(), decoded, "{name}");
    }
}

#[test]
fn emitted_packets_equal_the_golden_ones() {
    let golden = golden();
    let every_option = Options {
        blksize: Some(1428),
        windowsize: Some(16),
        timeout_s: Some(3),
        tsize: Some(1_048_576),
        rollover: Some(Rollover::One),
    };
    let mut request = Vec::new();
    emit_request(&mut request, Operation::Write, b"image", Mode::Octet, &every_option);
    assert_eq!(request, golden["wrq-every-option"].bytes);
    emit_request(&mut request, Operation::Read, b"motd", Mode::Netascii, &Options::default());
    assert_eq!(request, golden["rrq-netascii"].bytes);

    let mut oack = vec![9; 3];
    emit_oack(&mut oack, &Options { blksize: Some(1428), tsize: Some(4096), ..Options::default() });
    assert_eq!(oack, golden["oack"].bytes);

    let mut buf = [0; 64];
    let len = emit_ack(&mut buf, 258);
    assert_eq!(buf[..len], golden["ack"].bytes);
    let len = emit_error(&mut buf, ErrorCode::FILE_NOT_FOUND, "no such file");
    assert_eq!(buf[..len], golden["error"].bytes);
    emit_data_header(&mut buf, 65_535);
    buf[4..12].copy_from_slice(b"12345678");
    assert_eq!(buf[..12], golden["data-full"].bytes);
}

#[test]
fn a_buffer_too_short_is_left_alone_or_cuts_the_message() {
    assert_eq!(emit_ack(&mut [7; 3], 1), 0);
    assert_eq!(emit_error(&mut [7; 4], ErrorCode::DISK_FULL, "full"), 0);
    emit_data_header(&mut [7; 3], 1);
    let mut buf = [7; 7];
    assert_eq!(emit_error(&mut buf, ErrorCode::DISK_FULL, "full"), 7);
    assert_eq!(buf, *b"\0\x05\0\x03fu\0");
}

#[test]
fn each_malformation_has_a_counter_of_its_own() {
    let mut kinds: Vec<&str> = golden()
        .values()
        .filter_map(|golden| Packet::parse(&golden.bytes).err())
        .map(|fault| fault.kind())
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let all = [
        "empty_filename",
        "mail_mode",
        "too_long",
        "too_short",
        "truncated_option",
        "unknown_mode",
        "unknown_opcode",
        "unterminated",
    ];
    assert_eq!(kinds, all);
}

#[test]
fn sixty_five_kilobytes_of_options_are_refused_unread() {
    let mut request = b"\0\x01f\0octet\0".to_vec();
    request.extend(b"blksize\x001428\0".repeat(5_000));
    assert_eq!(Packet::parse(&request), Err(Malformed::TooLong));
    request[1] = 6;
    assert_eq!(Packet::parse(&request), Err(Malformed::TooLong));
}

/// Half of the inputs are cut from words that the parsers know, which random bytes hardly ever are.
fn run(body: fn(&[u8]), inputs: usize) {
    const WORDS: [&[u8]; 13] = [
        b"\0\x01f\0octet\0",
        b"\0\x02f\0netascii\0",
        b"\0\x03\0\x01",
        b"\0\x04\0\0",
        b"\0\x05\0\x01no\0",
        b"\0\x06",
        b"blksize\0",
        b"WindowSize\0",
        b"timeout\0",
        b"tsize\0",
        b"1\x00",
        b"1428\0",
        b"\0\0\0",
    ];
    let mut random = Random(2347);
    for _ in 0..inputs {
        let mut input = Vec::new();
        for _ in 0..random.next() % 60 {
            if random.hits(500) {
                input.extend(WORDS[random.next() as usize % WORDS.len()]);
            } else {
                input.extend(&random.next().to_le_bytes()[..random.next() as usize % 8]);
            }
        }
        body(&input);
    }
}

#[test]
fn any_datagram_parses_or_not() {
    run(bodies::packet, 20_000);
}

#[test]
fn any_negotiation_stays_within_the_request() {
    run(bodies::negotiation, 20_000);
}

#[test]
fn no_sequence_of_events_breaks_a_sender() {
    run(bodies::sender, 10_000);
}

#[test]
fn no_sequence_of_events_breaks_a_receiver() {
    run(bodies::receiver, 10_000);
}
