//! The sender, one rule a test. Longer than 500 lines, as the table of its rules is long.

use tftpbench_proto::{
    Agreed, Backoff, ErrorCode, Failure, Options, Outcome, Packet, Repeated, Rollover, Sender, Timing,
    Transmit,
};

const MS: u64 = 1_000_000;
const TIMING: Timing = Timing {
    timeout_ns: 100 * MS,
    retries: 3,
    backoff: Backoff::Exponential,
    adaptive_floor_ns: None,
    timeout_max_ns: 300 * MS,
};

fn agreed(windowsize: u16) -> Agreed {
    Agreed { blksize: 8, windowsize, timeout_s: None, rollover: Rollover::Zero }
}

/// Serves `blocks` full blocks and an empty one, without an OACK.
fn server(windowsize: u16, blocks: u64) -> Sender {
    Sender::server(agreed(windowsize), false, blocks * 8, TIMING, 0)
}

fn drain(sender: &mut Sender, now_ns: u64) -> Vec<Transmit> {
    std::iter::from_fn(|| sender.poll_transmit(now_ns)).collect()
}

/// Numbers of the DATA that go out.
fn blocks(sender: &mut Sender, now_ns: u64) -> Vec<u16> {
    let number = |transmit| match transmit {
        Transmit::Data { block, .. } => block,
        other => panic!("{other:?} is not DATA"),
    };
    drain(sender, now_ns).into_iter().map(number).collect()
}

fn ack(sender: &mut Sender, now_ns: u64, block: u16) -> Vec<u16> {
    sender.handle_packet(now_ns, &Packet::Ack { block });
    blocks(sender, now_ns)
}

#[test]
fn lock_step_sends_one_block_for_each_ack() {
    let mut sender = server(1, 2);
    let data = |block, offset, len| [Transmit::Data { block, offset, len, again: false }];
    assert_eq!(drain(&mut sender, 0), data(1, 0, 8));
    sender.handle_packet(MS, &Packet::Ack { block: 1 });
    assert_eq!(drain(&mut sender, MS), data(2, 8, 8));
    sender.handle_packet(2 * MS, &Packet::Ack { block: 2 });
    assert_eq!(drain(&mut sender, 2 * MS), data(3, 16, 0));
    assert_eq!((sender.acked_blocks(), sender.acked_bytes(), sender.is_finished()), (2, 16, false));
    assert_eq!(ack(&mut sender, 3 * MS, 3), []);
    assert_eq!(sender.outcome(), Some(&Outcome::Completed));
    assert_eq!((sender.acked_bytes(), sender.is_finished(), sender.deadline_ns()), (16, true, None));
}

/// Whatever was lost, and however large a run may be.
#[test]
fn a_run_leaves_the_sender_as_its_blocks_one_by_one_would() {
    for (windowsize, acks, most) in
        [(1, [1, 1, 2], 9), (4, [4, 4, 8], 9), (8, [3, 3, 9], 2), (8, [8, 8, 8], 1), (16, [2, 5, 20], 64)]
    {
        let (mut singly, mut in_runs) = (server(windowsize, 20), server(windowsize, 20));
        for (now_ns, block) in (0..).step_by(30_000_000).zip([0, acks[0], acks[1], acks[2]]) {
            for sender in [&mut singly, &mut in_runs] {
                sender.handle_packet(now_ns, &Packet::Ack { block });
                sender.handle_timeout(now_ns);
            }
            let one_by_one = blocks(&mut singly, now_ns);
            let mut run = Vec::new();
            while let Some(Transmit::Data { block, .. }) = in_runs.poll_transmit(now_ns) {
                run.extend(block..=block + in_runs.poll_run(now_ns, most - 1) as u16);
            }
            assert_eq!(run, one_by_one);
            assert_eq!(format!("{in_runs:?}"), format!("{singly:?}"), "{windowsize}: {block}");
        }
        // And what a time-out starts again.
        let late_ns = singly.deadline_ns().unwrap();
        for sender in [&mut singly, &mut in_runs] {
            sender.handle_timeout(late_ns);
        }
        let again = blocks(&mut singly, late_ns).len() as u64;
        in_runs.poll_transmit(late_ns);
        assert_eq!(1 + in_runs.poll_run(late_ns, u64::MAX), again);
        assert_eq!(format!("{in_runs:?}"), format!("{singly:?}"));
    }
}

#[test]
fn nothing_follows_an_opening_or_an_end() {
    let mut opening = Sender::server(agreed(4), true, 100, TIMING, 0);
    assert_eq!((opening.poll_transmit(0), opening.poll_run(0, 9)), (Some(Transmit::Opening), 0));
    let mut ended = server(4, 9);
    ended.abort(ErrorCode::NOT_DEFINED, "full");
    assert_eq!(ended.poll_run(0, 9), 0);
}

#[test]
fn an_empty_file_is_one_empty_block() {
    let mut sender = server(4, 0);
    assert_eq!(drain(&mut sender, 0), [Transmit::Data { block: 1, offset: 0, len: 0, again: false }]);
}

#[test]
fn a_duplicate_ack_in_lock_step_never_triggers_data() {
    let mut sender = server(1, 9);
    drain(&mut sender, 0);
    assert_eq!(ack(&mut sender, MS, 1), [2]);
    for now_ms in 2..50 {
        assert_eq!(ack(&mut sender, now_ms * MS, 1), []);
        assert_eq!(ack(&mut sender, now_ms * MS, 0), []);
    }
    assert_eq!(sender.counts().duplicates, 96);
}

#[test]
fn duplicates_do_not_put_off_the_retransmission() {
    let mut sender = server(1, 9);
    drain(&mut sender, 0);
    let deadline_ns = sender.deadline_ns();
    ack(&mut sender, 50 * MS, 0);
    assert_eq!((sender.deadline_ns(), deadline_ns), (Some(100 * MS), Some(100 * MS)));
}

#[test]
fn an_ack_inside_the_window_resumes_behind_it() {
    let mut sender = server(4, 20);
    assert_eq!(blocks(&mut sender, 0), [1, 2, 3, 4]);
    assert_eq!(ack(&mut sender, 2 * MS, 2), [3, 4, 5, 6]);
    assert_eq!(sender.counts().retransmissions, 2);
    assert_eq!(ack(&mut sender, 4 * MS, 6), [7, 8, 9, 10]);
}

/// The figure of RFC 7440 section 4: an ACK of 5 where 8 were sent, and an ACK that is lost.
#[test]
fn the_flow_that_rfc_7440_draws_comes_from_a_sender() {
    let mut sender = server(4, 20);
    assert_eq!(blocks(&mut sender, 0), [1, 2, 3, 4]);
    assert_eq!(ack(&mut sender, 2 * MS, 4), [5, 6, 7, 8]);
    assert_eq!(ack(&mut sender, 4 * MS, 5), [6, 7, 8, 9]);
    assert_eq!(ack(&mut sender, 6 * MS, 9), [10, 11, 12, 13]);
    sender.handle_timeout(106 * MS);
    assert_eq!(blocks(&mut sender, 106 * MS), [10, 11, 12, 13]);
    assert_eq!(ack(&mut sender, 108 * MS, 13), [14, 15, 16, 17]);
}

/// The ACKs of a window that the number rolled over in, doubled and late.
#[test]
fn an_old_ack_across_the_rollover_is_no_ack_of_the_future() {
    for (rollover, behind) in [(Rollover::Zero, [65_534, 0, 1]), (Rollover::One, [65_534, 1, 2])] {
        let mut sender = Sender::server(Agreed { rollover, ..agreed(1) }, false, 8 * 65_540, TIMING, 0);
        drain(&mut sender, 0);
        for block in 1..=65_535 {
            ack(&mut sender, MS, block);
        }
        assert_eq!(ack(&mut sender, MS, behind[1]), [behind[2]]);
        for old in [behind[0], 65_535] {
            assert_eq!(ack(&mut sender, MS, old), [], "{old}, {rollover:?}");
        }
        let counts = sender.counts();
        assert_eq!((counts.duplicates, counts.faults, sender.acked_blocks()), (2, 0, 65_536), "{rollover:?}");
    }
}

/// Whatever is lost on the way, and wherever in a window the end is.
#[test]
fn a_length_that_is_found_on_the_way_changes_nothing_of_what_is_sent() {
    for (length, windowsize) in (0..100).flat_map(|length| [1, 4, 64].map(|windowsize| (length, windowsize)))
    {
        let mut known = Sender::server(agreed(windowsize), false, length, TIMING, 0);
        let mut found = Sender::server_of_unknown_length(agreed(windowsize), false, TIMING, 0);
        let mut now_ns = 0;
        while !known.is_finished() {
            let last = loop {
                let (expected, mut sent) = (known.poll_transmit(now_ns), found.poll_transmit(now_ns));
                if let Some(Transmit::Data { offset, len, .. }) = &mut sent
                    && offset.saturating_add(8) > length
                {
                    found.set_length(length);
                    *len = (length - *offset) as usize;
                }
                assert_eq!(sent, expected, "{length} in {windowsize}");
                if sent.is_none() {
                    break known.acked_blocks() + 1;
                }
            };
            // Every window is lost once, and then one block of it arrives.
            now_ns += 1000 * MS;
            for sender in [&mut known, &mut found] {
                sender.handle_timeout(now_ns);
            }
            let again = [&mut known, &mut found].map(|sender| drain(sender, now_ns).len());
            assert_eq!(again[0], again[1]);
            for sender in [&mut known, &mut found] {
                sender.handle_packet(now_ns, &Packet::Ack { block: last as u16 });
            }
        }
        assert_eq!(known.outcome(), Some(&Outcome::Completed));
        assert_eq!(found.outcome(), known.outcome());
        assert_eq!((found.acked_bytes(), found.counts()), (known.acked_bytes(), known.counts()));
    }
}

#[test]
fn the_window_ends_with_the_file() {
    let mut sender = server(4, 5);
    assert_eq!(blocks(&mut sender, 0), [1, 2, 3, 4]);
    assert_eq!(ack(&mut sender, MS, 4), [5, 6]);
    assert_eq!(ack(&mut sender, 2 * MS, 6), []);
    assert_eq!(sender.outcome(), Some(&Outcome::Completed));
}

#[test]
fn a_repeated_ack_resends_a_window_once() {
    let mut sender = server(4, 20);
    drain(&mut sender, 0);
    assert_eq!(ack(&mut sender, 2 * MS, 4), [5, 6, 7, 8]);
    assert_eq!(ack(&mut sender, 4 * MS, 4), [5, 6, 7, 8]);
    for now_ms in 5..50 {
        assert_eq!(ack(&mut sender, now_ms * MS, 4), []);
    }
}

/// The second copy of a window makes its receiver acknowledge it twice.
#[test]
fn a_window_sent_twice_does_not_double_the_next() {
    let mut sender = server(4, 20);
    drain(&mut sender, 0);
    ack(&mut sender, 2 * MS, 4);
    assert_eq!(ack(&mut sender, 4 * MS, 4), [5, 6, 7, 8]);
    assert_eq!(ack(&mut sender, 5 * MS, 8), [9, 10, 11, 12]);
    assert_eq!(ack(&mut sender, 7 * MS, 8), []);
    assert_eq!(ack(&mut sender, 8 * MS, 12), [13, 14, 15, 16]);
    assert_eq!(ack(&mut sender, 10 * MS, 12), [13, 14, 15, 16]);
}

#[test]
fn a_doubled_ack_resends_nothing() {
    let mut sender = server(4, 20);
    drain(&mut sender, 0);
    assert_eq!(ack(&mut sender, 10 * MS, 4), [5, 6, 7, 8]);
    assert_eq!(ack(&mut sender, 10 * MS, 4), []);
}

#[test]
fn a_receiver_that_acknowledges_every_block_raises_no_storm() {
    const BLOCKS: u64 = 640;
    let mut sender = server(64, BLOCKS);
    // Each DATA is acknowledged 1 ms after it was sent; the link holds what is under way.
    let mut under_way: std::collections::VecDeque<u16> = blocks(&mut sender, 0).into();
    let (mut now_ns, mut received, mut sent) = (MS, 0, under_way.len());
    while let Some(block) = under_way.pop_front() {
        received += u16::from(block == received + 1);
        let answer = ack(&mut sender, now_ns, received);
        sent += answer.len();
        under_way.extend(answer);
        now_ns += MS / 64;
    }
    assert_eq!(sender.outcome(), Some(&Outcome::Completed));
    assert!(sent < 4 * BLOCKS as usize, "{sent} DATA for {BLOCKS} blocks");
}

#[test]
fn a_time_out_starts_again_behind_the_last_ack() {
    let mut sender = server(4, 20);
    drain(&mut sender, 0);
    ack(&mut sender, MS, 4);
    sender.handle_timeout(100 * MS);
    assert_eq!(drain(&mut sender, 100 * MS), []);
    sender.handle_timeout(101 * MS);
    assert_eq!(blocks(&mut sender, 101 * MS), [5, 6, 7, 8]);
}

/// A forged address draws a window with an ACK 0, and no second one by silence.
#[test]
fn a_time_out_before_any_ack_of_data_sends_one_block() {
    let mut sender = Sender::server(agreed(64), true, 8 * 1000, TIMING, 0);
    drain(&mut sender, 0);
    assert_eq!(ack(&mut sender, MS, 0).len(), 64);
    let mut sent = vec![];
    while let Some(deadline_ns) = sender.deadline_ns() {
        sender.handle_timeout(deadline_ns);
        sent.extend(blocks(&mut sender, deadline_ns));
    }
    assert_eq!((sent, sender.outcome()), (vec![64; 3], Some(&Outcome::TimedOut)));
}

/// The receiver may have had the whole window, and its ACK was lost; or some of it.
#[test]
fn the_first_ack_of_data_opens_the_window_again() {
    for (acked, window) in [(64, 65..=128), (10, 11..=74)] {
        let mut sender = Sender::server(agreed(64), true, 8 * 1000, TIMING, 0);
        drain(&mut sender, 0);
        ack(&mut sender, MS, 0);
        sender.handle_timeout(101 * MS);
        assert_eq!(blocks(&mut sender, 101 * MS), [64]);
        assert_eq!(ack(&mut sender, 102 * MS, acked), window.collect::<Vec<_>>());
        // From now on a time-out is about a window.
        sender.handle_timeout(sender.deadline_ns().unwrap());
        assert_eq!(blocks(&mut sender, 402 * MS).len(), 64);
    }
}

/// The whole window was lost, and the block that a time-out sent tells the receiver of the gap.
#[test]
fn an_ack_0_behind_a_time_out_brings_the_window_again_once() {
    let mut sender = Sender::server(agreed(64), true, 8 * 1000, TIMING, 0);
    drain(&mut sender, 0);
    ack(&mut sender, MS, 0);
    sender.handle_timeout(101 * MS);
    assert_eq!(blocks(&mut sender, 101 * MS), [64]);
    assert_eq!(ack(&mut sender, 103 * MS, 0).len(), 64);
    for now_ms in 104..200 {
        assert_eq!(ack(&mut sender, now_ms * MS, 0), []);
    }
}

/// RFC 2349 does not say from when on. A request with a forged sender must not hold a place for long.
#[test]
fn a_negotiated_timeout_is_in_force_from_the_first_answer_on() {
    let agreed = Agreed { timeout_s: Some(255), ..agreed(1) };
    let mut silent = Sender::server(agreed, true, 80, TIMING, 0);
    drain(&mut silent, 0);
    assert_eq!(silent.deadline_ns(), Some(100 * MS));
    assert_eq!(ack(&mut silent, MS, 0), [1]);
    assert_eq!(silent.deadline_ns(), Some(255_001 * MS));
    let mut unanswered = Sender::server(agreed, true, 80, TIMING, 0);
    let mut now_ns = 0;
    while let Some(deadline_ns) = unanswered.deadline_ns() {
        now_ns = deadline_ns;
        unanswered.handle_timeout(now_ns);
        drain(&mut unanswered, now_ns);
    }
    assert_eq!(now_ns, (100 + 200 + 300 + 300) * MS);
}

/// RFC 1350 section 2: the client repeats its request where the opening was lost.
#[test]
fn a_copy_of_the_request_brings_the_opening_again_until_something_is_acknowledged() {
    let (with_oack, without) = (Sender::server(agreed(4), true, 800, TIMING, 0), server(1, 99));
    for (mut sender, first) in [(with_oack, 0), (without, 1)] {
        let opening = |transmits: Vec<Transmit>| match transmits[..] {
            [Transmit::Opening] => first == 0,
            [Transmit::Data { block: 1, .. }] => first == 1,
            _ => false,
        };
        assert!(opening(drain(&mut sender, 0)));
        for now_ms in 1..=5 {
            assert_eq!(sender.handle_repeated_request(now_ms * MS), Repeated::Answered);
            assert!(opening(drain(&mut sender, now_ms * MS)));
        }
        // A forged request draws no more for being repeated.
        assert_eq!(sender.handle_repeated_request(6 * MS), Repeated::Ignored);
        assert_eq!(drain(&mut sender, 6 * MS), []);
        assert!(!ack(&mut sender, 7 * MS, first).is_empty());
        assert_eq!(sender.handle_repeated_request(8 * MS), Repeated::Ignored);
        assert_eq!(drain(&mut sender, 8 * MS), []);
        assert_eq!(sender.handle_repeated_request(107 * MS), Repeated::Restart);
    }
}

#[test]
fn a_copy_of_the_request_restarts_nothing_that_moves() {
    let mut sender = server(1, 99);
    drain(&mut sender, 0);
    for block in 1..50 {
        ack(&mut sender, u64::from(block) * 99 * MS, block);
        assert_eq!(sender.handle_repeated_request((u64::from(block) * 99 + 98) * MS), Repeated::Ignored);
    }
    sender.abort(ErrorCode::NOT_DEFINED, "stop");
    assert_eq!(sender.handle_repeated_request(9000 * MS), Repeated::Ignored);
}

#[test]
fn an_ack_of_a_block_not_sent_is_a_fault_and_changes_nothing() {
    let mut sender = server(4, 20);
    drain(&mut sender, 0);
    assert_eq!(ack(&mut sender, MS, 5), []);
    assert_eq!((sender.counts().faults, sender.acked_blocks(), sender.answered()), (1, 0, false));
}

#[test]
fn silence_is_tried_against_as_often_as_there_are_retries() {
    let mut sender = server(1, 1);
    let mut sent = drain(&mut sender, 0).len();
    let mut now_ns = 0;
    while let Some(deadline_ns) = sender.deadline_ns() {
        now_ns = deadline_ns;
        sender.handle_timeout(now_ns);
        sent += drain(&mut sender, now_ns).len();
    }
    assert_eq!(sender.outcome(), Some(&Outcome::TimedOut));
    assert!(sender.is_finished());
    // 100, then doubled, then at the most.
    assert_eq!((sent, now_ns), (4, (100 + 200 + 300 + 300) * MS));
    assert_eq!((sender.counts().timeouts, sender.counts().retransmissions), (4, 3));
}

#[test]
fn a_servers_oack_goes_out_until_ack_0_comes() {
    let mut sender = Sender::server(agreed(1), true, 8, TIMING, 0);
    assert_eq!(drain(&mut sender, 0), [Transmit::Opening]);
    assert_eq!(ack(&mut sender, MS, 1), []);
    sender.handle_timeout(100 * MS);
    assert_eq!(drain(&mut sender, 100 * MS), [Transmit::Opening]);
    assert_eq!(ack(&mut sender, 101 * MS, 0), [1]);
    assert_eq!((sender.counts().retransmissions, sender.counts().faults), (1, 1));
}

#[test]
fn a_client_goes_by_the_oack() {
    let asked = Options { blksize: Some(1024), windowsize: Some(4), ..Options::default() };
    let mut sender = Sender::client(asked, 3000, TIMING, 0);
    assert_eq!(drain(&mut sender, 0), [Transmit::Opening]);
    let oack = Packet::parse(b"\0\x06blksize\x001000\0").unwrap();
    sender.handle_packet(MS, &oack);
    assert_eq!(blocks(&mut sender, MS), [1]);
    assert_eq!(*sender.agreed(), Agreed { blksize: 1000, ..Agreed::from(&Options::default()) });
    sender.handle_packet(2 * MS, &oack);
    assert_eq!(drain(&mut sender, 2 * MS), [], "a repeated OACK is harmless");
}

#[test]
fn a_client_whose_options_are_not_answered_goes_by_rfc_1350() {
    let asked = Options { blksize: Some(1024), windowsize: Some(4), ..Options::default() };
    let mut sender = Sender::client(asked, 3000, TIMING, 0);
    drain(&mut sender, 0);
    sender.handle_packet(MS, &Packet::Ack { block: 0 });
    assert_eq!(drain(&mut sender, MS), [Transmit::Data { block: 1, offset: 0, len: 512, again: false }]);
}

#[test]
fn an_oack_beyond_the_request_is_answered_with_error_8() {
    let mut sender = Sender::client(Options::default(), 3000, TIMING, 0);
    drain(&mut sender, 0);
    sender.handle_packet(MS, &Packet::parse(b"\0\x06blksize\x001000\0").unwrap());
    let [Transmit::Error { code, .. }] = drain(&mut sender, MS)[..] else { panic!("no ERROR") };
    assert_eq!(code, ErrorCode::OPTION_REFUSED);
    assert!(matches!(sender.outcome(), Some(Outcome::Failed(Failure::Protocol(_)))));
}

#[test]
fn data_to_a_sender_is_answered_with_error_4() {
    let mut sender = server(1, 1);
    drain(&mut sender, 0);
    sender.handle_packet(MS, &Packet::Data { block: 1, payload: b"" });
    assert!(!sender.is_finished());
    let [Transmit::Error { code, .. }] = drain(&mut sender, MS)[..] else { panic!("no ERROR") };
    assert_eq!((code, sender.is_finished()), (ErrorCode::ILLEGAL_OPERATION, true));
}

#[test]
fn an_error_ends_the_transfer_and_is_never_answered() {
    let mut sender = server(4, 20);
    sender.handle_packet(0, &Packet::Error { code: ErrorCode::DISK_FULL, message: b"full" });
    assert_eq!(drain(&mut sender, 0), []);
    let failure = Failure::Peer { code: ErrorCode::DISK_FULL, message: (*b"full").into() };
    assert_eq!(sender.outcome(), Some(&Outcome::Failed(failure)));
    assert!(sender.is_finished() && sender.answered());
}

#[test]
fn an_abort_sends_one_error_and_then_nothing_is_answered() {
    let mut sender = server(4, 20);
    drain(&mut sender, 0);
    sender.abort(ErrorCode::NOT_DEFINED, "file changed");
    let error = Transmit::Error { code: ErrorCode::NOT_DEFINED, message: "file changed" };
    assert_eq!(drain(&mut sender, MS), [error]);
    assert_eq!(ack(&mut sender, 2 * MS, 4), []);
    let failure = Failure::Local { code: ErrorCode::NOT_DEFINED, message: "file changed" };
    assert_eq!(sender.outcome(), Some(&Outcome::Failed(failure)));
}

#[test]
fn a_repeated_request_is_harmless() {
    let mut sender = server(1, 20);
    drain(&mut sender, 0);
    sender.handle_packet(MS, &Packet::parse(b"\0\x01f\0octet\0").unwrap());
    assert_eq!((drain(&mut sender, MS), sender.counts().duplicates), (vec![], 1));
}

#[test]
fn ten_thousand_of_them_are_small() {
    assert!(size_of::<Sender>() <= 312, "{}", size_of::<Sender>());
}

#[test]
fn a_changed_tsize_in_the_answer_to_a_wrq_is_counted_and_the_transfer_goes_on() {
    let asked = Options { tsize: Some(3000), ..Options::default() };
    for (oack, faults) in [(b"\0\x06tsize\x003000\0", 0), (b"\0\x06tsize\x002999\0", 1)] {
        let mut sender = Sender::client(asked, 3000, TIMING, 0);
        drain(&mut sender, 0);
        sender.handle_packet(MS, &Packet::parse(oack).unwrap());
        assert_eq!(blocks(&mut sender, MS), [1]);
        assert_eq!(sender.counts().faults, faults);
    }
}

#[test]
fn a_request_to_a_client_is_answered_with_error_4() {
    let mut sender = Sender::client(Options::default(), 3000, TIMING, 0);
    drain(&mut sender, 0);
    sender.handle_packet(MS, &Packet::parse(b"\0\x02f\0octet\0").unwrap());
    assert!(matches!(
        drain(&mut sender, MS)[..],
        [Transmit::Error { code: ErrorCode::ILLEGAL_OPERATION, .. }]
    ));
    assert_eq!(sender.latest_fault().map(|fault| fault.kind()), Some("unexpected_opcode"));
}
