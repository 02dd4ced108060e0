//! The receiver, one rule a test.

use std::sync::Arc;

use tftpbench_proto::{
    Agreed, Backoff, Block, ErrorCode, Failure, Habits, Nack, Options, Outcome, Packet, ProtocolFault,
    Receiver, Repeated, Rollover, Timing, Transmit,
};

const MS: u64 = 1_000_000;
const TIMING: Timing = Timing {
    timeout_ns: 100 * MS,
    retries: 3,
    backoff: Backoff::Exponential,
    adaptive_floor_ns: None,
    timeout_max_ns: 1000 * MS,
};
const FULL: &[u8] = b"12345678";

/// Opened and drained.
fn server(windowsize: u16) -> Receiver {
    let agreed = Agreed { blksize: 8, windowsize, timeout_s: None, rollover: Rollover::Zero };
    let mut receiver = Receiver::server(agreed, TIMING, 0);
    assert_eq!(drain(&mut receiver, 0), [Transmit::Opening]);
    receiver
}

fn drain(receiver: &mut Receiver, now_ns: u64) -> Vec<Transmit> {
    std::iter::from_fn(|| receiver.poll_transmit(now_ns)).collect()
}

fn data(receiver: &mut Receiver, now_ns: u64, block: u16, payload: &'static [u8]) -> Vec<Transmit> {
    receiver.handle_packet(now_ns, &Packet::Data { block, payload });
    drain(receiver, now_ns)
}

fn ack(block: u16) -> [Transmit; 1] {
    [Transmit::Ack { block, again: false }]
}

fn ack_again(block: u16) -> [Transmit; 1] {
    [Transmit::Ack { block, again: true }]
}

#[test]
fn lock_step_acknowledges_each_block_and_dallies_after_the_last() {
    let mut receiver = server(1);
    let block = receiver.handle_packet(MS, &Packet::Data { block: 1, payload: FULL });
    assert_eq!(block, Some(Block { offset: 0, payload: FULL, last: false }));
    assert_eq!(drain(&mut receiver, MS), ack(1));
    let block = receiver.handle_packet(2 * MS, &Packet::Data { block: 2, payload: b"x" });
    assert_eq!(block, Some(Block { offset: 8, payload: b"x", last: true }));
    assert_eq!(receiver.outcome(), None, "the peer does not know yet");
    assert_eq!(drain(&mut receiver, 2 * MS), ack(2));
    assert_eq!(receiver.outcome(), Some(&Outcome::Completed));
    assert_eq!(
        (receiver.received_blocks(), receiver.received_bytes(), receiver.is_finished()),
        (2, 9, false)
    );
}

#[test]
fn dallying_repeats_the_last_ack_and_ends() {
    let mut receiver = server(1);
    data(&mut receiver, 0, 1, b"");
    assert_eq!(receiver.deadline_ns(), Some(150 * MS));
    assert_eq!(data(&mut receiver, 100 * MS, 1, b""), ack_again(1));
    assert_eq!(data(&mut receiver, 101 * MS, 2, b""), []);
    receiver.handle_timeout(150 * MS);
    assert!(!receiver.is_finished(), "the peer may have missed that one, too");
    let deadline_ns = receiver.deadline_ns().unwrap();
    receiver.handle_timeout(deadline_ns);
    assert!(receiver.is_finished());
    assert_eq!((receiver.deadline_ns(), data(&mut receiver, deadline_ns, 1, b"")), (None, vec![]));
}

#[test]
fn no_peer_keeps_a_receiver_dallying_for_ever() {
    let mut receiver = server(1);
    data(&mut receiver, 0, 1, b"");
    for now_ms in 0..10_000 {
        receiver.handle_timeout(now_ms * MS);
        data(&mut receiver, now_ms * MS, 1, b"");
    }
    assert!(receiver.is_finished());
}

#[test]
fn a_repeated_block_in_lock_step_is_acknowledged_again_but_not_given_out() {
    let mut receiver = server(1);
    data(&mut receiver, 0, 1, FULL);
    assert_eq!(receiver.handle_packet(MS, &Packet::Data { block: 1, payload: FULL }), None);
    assert_eq!(drain(&mut receiver, MS), ack_again(1));
    data(&mut receiver, 2 * MS, 2, FULL);
    assert_eq!(data(&mut receiver, 3 * MS, 1, FULL), [], "the sender has ACK 1 already");
    assert_eq!(receiver.counts().duplicates, 2);
}

#[test]
fn a_window_has_one_ack() {
    let mut receiver = server(3);
    assert_eq!(data(&mut receiver, 0, 1, FULL), []);
    assert_eq!(data(&mut receiver, 0, 2, FULL), []);
    assert_eq!(data(&mut receiver, 0, 3, FULL), ack(3));
    assert_eq!(data(&mut receiver, 0, 4, FULL), []);
    assert_eq!(data(&mut receiver, 0, 5, b""), ack(5), "the file ends inside the window");
}

#[test]
fn a_gap_is_reported_once() {
    let mut receiver = server(8);
    data(&mut receiver, 0, 1, FULL);
    assert_eq!(data(&mut receiver, 0, 3, FULL), ack(1));
    for block in 4..9 {
        assert_eq!(data(&mut receiver, 0, block, FULL), []);
    }
    assert_eq!(data(&mut receiver, MS, 2, FULL), []);
    assert_eq!(data(&mut receiver, MS, 4, FULL), ack(2), "another gap");
    assert_eq!(receiver.received_bytes(), 16);
}

/// The figure of RFC 7440 section 4: the end of a window lost, then a block, then the ACK that reported it.
#[test]
fn the_flow_that_rfc_7440_draws_is_answered_by_a_receiver() {
    let mut receiver = server(4);
    let window = |receiver: &mut Receiver, now_ms: u64, blocks: &[u16]| -> Vec<Transmit> {
        let payload = |block| if block == 13 { b"" } else { FULL };
        blocks.iter().flat_map(|&block| data(receiver, now_ms * MS, block, payload(block))).collect()
    };
    assert_eq!(window(&mut receiver, 0, &[1, 2, 3, 4]), ack(4));
    assert_eq!(window(&mut receiver, 2, &[5]), []);
    receiver.handle_timeout(102 * MS);
    assert_eq!(drain(&mut receiver, 102 * MS), ack(5));
    assert_eq!(window(&mut receiver, 104, &[6, 7, 8, 9]), ack(9));
    assert_eq!(window(&mut receiver, 106, &[10, 12]), ack(10));
    assert_eq!(window(&mut receiver, 206, &[10, 11, 12, 13]), [ack_again(10), ack(13)].concat());
    assert_eq!(receiver.outcome(), Some(&Outcome::Completed));
}

#[test]
fn a_windows_first_block_missing_repeats_the_last_ack() {
    let mut receiver = server(2);
    data(&mut receiver, 0, 1, FULL);
    assert_eq!(data(&mut receiver, 0, 2, FULL), ack(2));
    assert_eq!(data(&mut receiver, MS, 4, FULL), ack_again(2));
}

#[test]
fn a_block_doubled_in_mid_window_is_not_acknowledged() {
    let mut receiver = server(4);
    data(&mut receiver, 0, 1, FULL);
    assert_eq!(data(&mut receiver, 0, 1, FULL), []);
}

#[test]
fn a_window_sent_again_after_a_lost_ack_is_acknowledged_again() {
    let mut receiver = server(2);
    data(&mut receiver, MS, 1, FULL);
    assert_eq!(data(&mut receiver, MS, 2, FULL), ack(2));
    assert_eq!(data(&mut receiver, 90 * MS, 1, FULL), []);
    assert_eq!(data(&mut receiver, 90 * MS, 2, FULL), ack_again(2));
}

/// Two flights of a sender that went back overlap; acknowledging both would make it go back for ever.
#[test]
fn a_window_that_was_under_way_twice_is_acknowledged_once() {
    let mut receiver = server(2);
    data(&mut receiver, 10 * MS, 1, FULL);
    assert_eq!(data(&mut receiver, 10 * MS, 2, FULL), ack(2));
    data(&mut receiver, 20 * MS, 3, FULL);
    assert_eq!(data(&mut receiver, 20 * MS, 4, FULL), ack(4), "after a round trip of 10 ms");
    assert_eq!(data(&mut receiver, 39 * MS, 4, FULL), []);
    assert_eq!(data(&mut receiver, 40 * MS, 4, FULL), ack_again(4), "this one was sent on a time-out");
}

#[test]
fn blocks_from_outside_the_window_are_ignored_and_counted() {
    let mut receiver = server(4);
    for block in [0, 5, 300, 65_535] {
        assert_eq!(data(&mut receiver, 0, block, FULL), [], "{block}");
    }
    assert_eq!((receiver.counts().faults, receiver.received_blocks(), receiver.answered()), (4, 0, false));
}

#[test]
fn data_larger_than_agreed_is_answered_with_error_4() {
    let mut receiver = server(1);
    let [Transmit::Error { code, .. }] = data(&mut receiver, 0, 1, b"123456789")[..] else {
        panic!("no ERROR")
    };
    assert_eq!((code, receiver.received_bytes()), (ErrorCode::ILLEGAL_OPERATION, 0));
    assert!(receiver.is_finished());
}

#[test]
fn an_abort_replaces_the_last_ack() {
    let mut receiver = server(1);
    receiver.handle_packet(0, &Packet::Data { block: 1, payload: b"" });
    receiver.abort(ErrorCode::DISK_FULL, "disk full");
    let (code, message) = (ErrorCode::DISK_FULL, "disk full");
    assert_eq!(drain(&mut receiver, 0), [Transmit::Error { code, message }]);
    assert_eq!(receiver.outcome(), Some(&Outcome::Failed(Failure::Local { code, message })));
    assert!(receiver.is_finished());
}

#[test]
fn a_close_leaves_the_ack_that_is_due_and_only_that_before_the_error() {
    let (code, message) = (ErrorCode::NOT_DEFINED, "closed");
    let close = |receiver: &mut Receiver| {
        receiver.close(code, message);
        assert_eq!(receiver.outcome(), Some(&Outcome::Failed(Failure::Local { code, message })));
        let sent = drain(receiver, 0);
        assert!(receiver.is_finished() && receiver.deadline_ns().is_none());
        sent
    };
    let mut receiver = server(1);
    receiver.handle_packet(0, &Packet::Data { block: 1, payload: FULL });
    assert_eq!(close(&mut receiver), [ack(1)[0], Transmit::Error { code, message }]);
    let mut receiver = server(4);
    receiver.handle_packet(0, &Packet::Data { block: 1, payload: FULL });
    assert_eq!(close(&mut receiver), [Transmit::Error { code, message }], "its window has not ended");
    let mut receiver = server(1);
    receiver.handle_timeout(100 * MS);
    assert_eq!(close(&mut receiver), [Transmit::Error { code, message }], "no opening goes out again");
}

#[test]
fn an_abort_after_completion_changes_nothing() {
    let mut receiver = server(1);
    data(&mut receiver, 0, 1, b"");
    receiver.abort(ErrorCode::NOT_DEFINED, "stop");
    assert_eq!((drain(&mut receiver, 0), receiver.outcome()), (vec![], Some(&Outcome::Completed)));
}

#[test]
fn an_error_ends_the_transfer_and_is_never_answered() {
    let mut receiver = server(1);
    receiver.handle_packet(0, &Packet::Error { code: ErrorCode(99), message: &[b'x'; 9000] });
    assert_eq!(drain(&mut receiver, 0), []);
    let Some(Outcome::Failed(Failure::Peer { code, message })) = receiver.outcome() else {
        panic!("not failed")
    };
    assert_eq!((*code, message.len()), (ErrorCode(99), 512));
}

#[test]
fn a_servers_opening_goes_out_until_data_comes_and_then_the_last_ack() {
    let mut receiver = server(1);
    receiver.handle_timeout(100 * MS);
    assert_eq!(drain(&mut receiver, 100 * MS), [Transmit::Opening]);
    data(&mut receiver, 101 * MS, 1, FULL);
    let deadline_ns = receiver.deadline_ns().unwrap();
    receiver.handle_timeout(deadline_ns);
    assert_eq!(drain(&mut receiver, deadline_ns), ack_again(1));
    assert_eq!(receiver.counts().retransmissions, 2);
}

#[test]
fn a_client_acknowledges_the_oack_each_time_until_data_comes() {
    let asked = Options { blksize: Some(1024), tsize: Some(0), ..Options::default() };
    let mut receiver = Receiver::client(asked, TIMING, 0);
    assert_eq!(drain(&mut receiver, 0), [Transmit::Opening]);
    let oack = Packet::parse(b"\0\x06blksize\x008\0tsize\x009\0").unwrap();
    receiver.handle_packet(MS, &oack);
    assert_eq!(drain(&mut receiver, MS), ack(0));
    assert_eq!((receiver.tsize(), receiver.agreed().blksize), (Some(9), 8));
    receiver.handle_packet(2 * MS, &oack);
    assert_eq!(drain(&mut receiver, 2 * MS), ack_again(0));
    receiver.handle_timeout(102 * MS);
    assert_eq!(drain(&mut receiver, 102 * MS), ack_again(0));
    assert_eq!(data(&mut receiver, 103 * MS, 1, FULL), ack(1));
    receiver.handle_packet(104 * MS, &oack);
    assert_eq!(drain(&mut receiver, 104 * MS), []);
}

#[test]
fn a_client_whose_options_are_not_answered_goes_by_rfc_1350() {
    let asked = Options { blksize: Some(1024), windowsize: Some(4), ..Options::default() };
    let mut receiver = Receiver::client(asked, TIMING, 0);
    drain(&mut receiver, 0);
    assert_eq!(data(&mut receiver, MS, 1, &[0; 512]), ack(1));
    assert_eq!(*receiver.agreed(), Agreed::from(&Options::default()));
}

#[test]
fn an_oack_beyond_the_request_is_answered_with_error_8() {
    let mut receiver = Receiver::client(Options::default(), TIMING, 0);
    drain(&mut receiver, 0);
    receiver.handle_packet(MS, &Packet::parse(b"\0\x06windowsize\x004\0").unwrap());
    let [Transmit::Error { code, .. }] = drain(&mut receiver, MS)[..] else { panic!("no ERROR") };
    assert_eq!(code, ErrorCode::OPTION_REFUSED);
}

#[test]
fn an_ack_to_a_receiver_is_answered_with_error_4() {
    let mut receiver = server(1);
    receiver.handle_packet(0, &Packet::Ack { block: 1 });
    let [Transmit::Error { code, .. }] = drain(&mut receiver, 0)[..] else { panic!("no ERROR") };
    assert_eq!(code, ErrorCode::ILLEGAL_OPERATION);
}

#[test]
fn a_negotiated_timeout_takes_the_place_of_ours() {
    let asked = Options { timeout_s: Some(5), ..Options::default() };
    let mut receiver = Receiver::client(asked, TIMING, 0);
    drain(&mut receiver, 0);
    receiver.handle_packet(MS, &Packet::parse(b"\0\x06timeout\x005\0").unwrap());
    drain(&mut receiver, MS);
    assert_eq!(receiver.deadline_ns(), Some(5_001 * MS));
}

#[test]
fn a_servers_negotiated_timeout_is_in_force_from_the_first_data_on() {
    let agreed = Agreed { blksize: 8, windowsize: 4, timeout_s: Some(255), rollover: Rollover::Zero };
    for block in [1, 2] {
        let mut receiver = Receiver::server(agreed, TIMING, 0);
        drain(&mut receiver, 0);
        assert_eq!(receiver.deadline_ns(), Some(100 * MS));
        data(&mut receiver, 0, block, FULL);
        drain(&mut receiver, 0);
        receiver.handle_timeout(receiver.deadline_ns().unwrap());
        drain(&mut receiver, 255_000 * MS);
        assert!(receiver.deadline_ns() >= Some(255_000 * MS), "block {block}");
    }
}

/// RFC 1350 section 2: the client repeats its request where the OACK or ACK 0 was lost.
#[test]
fn a_copy_of_the_request_brings_the_opening_again_until_data_come() {
    let mut receiver = server(1);
    for now_ms in 1..=5 {
        assert_eq!(receiver.handle_repeated_request(now_ms * MS), Repeated::Answered);
        assert_eq!(drain(&mut receiver, now_ms * MS), [Transmit::Opening]);
    }
    assert_eq!(receiver.handle_repeated_request(6 * MS), Repeated::Ignored);
    data(&mut receiver, 7 * MS, 1, FULL);
    assert_eq!(receiver.handle_repeated_request(106 * MS), Repeated::Ignored);
    assert_eq!(drain(&mut receiver, 106 * MS), []);
    assert_eq!(receiver.handle_repeated_request(107 * MS), Repeated::Restart);
}

/// A client with habits that has been granted windows of four blocks of 8 bytes, drained. It sends its request after 0 and
/// 300 ms, and later datagrams after 0 and 50 ms.
fn client_with(nack: Nack, asks_others: bool, oack: &'static [u8]) -> Receiver {
    let asked = Options { blksize: Some(8), windowsize: Some(4), ..Options::default() };
    let habits = Habits {
        opening_waits_ns: [300 * MS, 600 * MS].into(),
        waits_ns: [50 * MS, 70 * MS].into(),
        nack,
        asks_others,
    };
    let mut receiver = Receiver::client_with(asked, Arc::new(habits), 0);
    assert_eq!(drain(&mut receiver, 0), [Transmit::Opening]);
    let packet = Packet::parse(oack);
    assert!(packet.is_ok());
    packet.map(|packet| receiver.handle_packet(0, &packet)).ok();
    receiver
}

const WINDOWED: &[u8] = b"\0\x06blksize\x008\0windowsize\x004\0";
const WITH_ANOTHER: &[u8] = b"\0\x06blksize\x008\0msftwindow\x0027182\0windowsize\x004\0";

#[test]
fn what_a_client_says_to_blocks_out_of_order_is_its_habit() {
    for (nack, answers) in [
        (Nack::Gap, [&ack(1)[..], &[], &ack(2), &[]]),
        (Nack::Block, [&ack(1), &ack_again(1), &ack(2), &ack_again(2)]),
        (Nack::Nothing, [&[], &[], &[], &[]]),
    ] {
        let mut receiver = client_with(nack, false, WINDOWED);
        assert_eq!(drain(&mut receiver, 0), ack(0));
        assert_eq!(data(&mut receiver, 0, 1, FULL), []);
        let first = [3, 4].map(|block| data(&mut receiver, 0, block, FULL));
        assert_eq!(data(&mut receiver, 0, 2, FULL), [], "{nack:?}: it is in order");
        let second = [4, 5].map(|block| data(&mut receiver, 0, block, FULL));
        assert_eq!([first, second].concat(), answers, "{nack:?}");
    }
}

#[test]
fn a_client_with_habits_waits_by_its_tables_and_never_dallies() {
    let mut receiver = client_with(Nack::Gap, false, b"\0\x05\0\0\0");
    assert!(receiver.is_finished(), "refused");
    receiver = client_with(Nack::Gap, false, WINDOWED);
    drain(&mut receiver, 0);
    assert_eq!(receiver.deadline_ns(), Some(50 * MS));
    receiver.handle_timeout(50 * MS);
    assert_eq!(drain(&mut receiver, 50 * MS), ack_again(0));
    assert_eq!(receiver.deadline_ns(), Some(120 * MS));
    assert_eq!(data(&mut receiver, 60 * MS, 1, b"x"), ack(1));
    assert_eq!((receiver.outcome(), receiver.is_finished()), (Some(&Outcome::Completed), true));
    assert_eq!(data(&mut receiver, 61 * MS, 1, b"x"), [], "its last ACK is lost: it has gone");

    let asked = Options::default();
    let habits = Habits {
        opening_waits_ns: [4_000 * MS, 8_000 * MS].into(),
        waits_ns: [31_600 * MS].into(),
        nack: Nack::Gap,
        asks_others: false,
    };
    let mut silent = Receiver::client_with(asked, Arc::new(habits), 0);
    drain(&mut silent, 0);
    for (now_ms, sent) in [(4_000, &[Transmit::Opening][..]), (12_000, &[])] {
        assert_eq!(silent.deadline_ns(), Some(now_ms * MS));
        silent.handle_timeout(now_ms * MS);
        assert_eq!(drain(&mut silent, now_ms * MS), sent);
    }
    assert_eq!(silent.outcome(), Some(&Outcome::TimedOut), "as many sendings as waits");
}

#[test]
fn an_option_that_is_not_known_may_be_granted_where_the_request_had_such() {
    let mut asking = client_with(Nack::Gap, true, WITH_ANOTHER);
    assert_eq!(drain(&mut asking, 0), ack(0));
    assert_eq!((asking.agreed().blksize, asking.agreed().windowsize), (8, 4));
    let mut other = client_with(Nack::Gap, false, WITH_ANOTHER);
    assert!(matches!(drain(&mut other, 0)[..], [Transmit::Error { code: ErrorCode::OPTION_REFUSED, .. }]));
}

#[test]
fn ten_thousand_of_them_are_small() {
    assert!(size_of::<Receiver>() <= 272, "{}", size_of::<Receiver>());
}

/// A client that asked for blksize and tsize, with the answer `oack` in, drained.
fn client(oack: &Packet<'_>) -> Receiver {
    let asked = Options { blksize: Some(8), tsize: Some(0), ..Options::default() };
    let mut receiver = Receiver::client(asked, TIMING, 0);
    drain(&mut receiver, 0);
    receiver.handle_packet(MS, oack);
    drain(&mut receiver, MS);
    receiver
}

/// How it ended for the peer's fault, if it did.
fn protocol_fault(receiver: &Receiver) -> Option<ProtocolFault> {
    match receiver.outcome() {
        Some(Outcome::Failed(Failure::Protocol(fault))) => Some(*fault),
        _ => None,
    }
}

#[test]
fn a_file_longer_than_its_tsize_ends_with_the_first_byte_too_much() {
    let mut receiver = client(&Packet::parse(b"\0\x06blksize\x008\0tsize\x009\0").unwrap());
    assert_eq!(data(&mut receiver, 2 * MS, 1, FULL), ack(1));
    let too_much = receiver.handle_packet(3 * MS, &Packet::Data { block: 2, payload: FULL });
    assert_eq!((too_much, receiver.received_bytes()), (None, 8));
    let [Transmit::Error { code, .. }] = drain(&mut receiver, 3 * MS)[..] else { panic!("no ERROR") };
    assert_eq!(code, ErrorCode::DISK_FULL);
    assert_eq!(protocol_fault(&receiver), Some(ProtocolFault::LongerThanTsize));
}

#[test]
fn a_file_shorter_than_its_tsize_is_not_acknowledged_as_whole() {
    let mut receiver = client(&Packet::parse(b"\0\x06blksize\x008\0tsize\x009\0").unwrap());
    let [Transmit::Error { code, .. }] = data(&mut receiver, 2 * MS, 1, b"short")[..] else {
        panic!("no ERROR")
    };
    assert_eq!(code, ErrorCode::NOT_DEFINED);
    assert_eq!(protocol_fault(&receiver), Some(ProtocolFault::ShorterThanTsize));
    assert_eq!(receiver.counts().faults, 1);
}

#[test]
fn a_tsize_that_only_echoes_the_request_is_counted_once_and_bounds_nothing() {
    let mut receiver = client(&Packet::parse(b"\0\x06blksize\x008\0tsize\x000\0").unwrap());
    assert_eq!(data(&mut receiver, 2 * MS, 1, FULL), ack(1));
    assert_eq!(data(&mut receiver, 2 * MS, 2, FULL), ack(2));
    assert_eq!(data(&mut receiver, 3 * MS, 3, b"x"), ack(3));
    assert_eq!(receiver.outcome(), Some(&Outcome::Completed));
    assert_eq!(
        (receiver.counts().faults, receiver.latest_fault()),
        (1, Some(ProtocolFault::LongerThanTsize))
    );
}

#[test]
fn data_behind_the_last_block_is_counted_and_not_answered() {
    let mut receiver = client(&Packet::parse(b"\0\x06blksize\x008\0").unwrap());
    assert_eq!(data(&mut receiver, 2 * MS, 1, b"x"), ack(1));
    assert_eq!(data(&mut receiver, 2 * MS, 2, b"y"), []);
    assert_eq!((receiver.counts().faults, receiver.latest_fault()), (1, Some(ProtocolFault::DataPastEnd)));
    assert_eq!(receiver.outcome(), Some(&Outcome::Completed));
}

#[test]
fn a_request_is_a_repeat_to_a_server_and_a_fault_to_a_client() {
    let request = Packet::parse(b"\0\x01f\0octet\0").unwrap();
    let mut serving = server(1);
    serving.handle_packet(MS, &request);
    assert_eq!((serving.outcome(), serving.counts().duplicates), (None, 1));
    let mut asking = client(&Packet::parse(b"\0\x06blksize\x008\0").unwrap());
    asking.handle_packet(2 * MS, &request);
    assert_eq!(protocol_fault(&asking), Some(ProtocolFault::UnexpectedOpcode));
}
