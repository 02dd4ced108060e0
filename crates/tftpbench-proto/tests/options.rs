//! What is read, granted and accepted of options.

use tftpbench_proto::{
    Agreed, Limits, OptionList, OptionName, Options, Packet, ProtocolFault, Rollover, accept, emit_oack,
    negotiate,
};

const NO_LIMITS: Limits = Limits::NONE;

fn oack(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0, 6];
    for word in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(word.bytes());
        bytes.push(0);
    }
    bytes
}

fn list(oack: &[u8]) -> OptionList<'_> {
    let Ok(Packet::Oack(list)) = Packet::parse(oack) else { panic!("{oack:?} is no OACK") };
    list
}

fn read(pairs: &[(&str, &str)]) -> Options {
    Options::from_list(list(&oack(pairs)))
}

fn accepted(asked: Options, pairs: &[(&str, &str)]) -> Result<Options, ProtocolFault> {
    accept(&asked, list(&oack(pairs)))
}

#[test]
fn names_are_read_in_any_case() {
    let options = read(&[("BlkSize", "1428"), ("WINDOWSIZE", "8"), ("timeout", "255"), ("tSize", "0")]);
    let expected = Options {
        blksize: Some(1428),
        windowsize: Some(8),
        timeout_s: Some(255),
        tsize: Some(0),
        rollover: None,
    };
    assert_eq!(options, expected);
}

#[test]
fn bounds_are_those_of_the_rfcs() {
    for (name, good, bad) in [
        ("blksize", ["8", "65464"], ["7", "65465"]),
        ("windowsize", ["1", "65535"], ["0", "65536"]),
        ("timeout", ["1", "255"], ["0", "256"]),
        ("rollover", ["0", "1"], ["2", "65535"]),
        ("tsize", ["0", "18446744073709551615"], ["18446744073709551616", "99999999999999999999999"]),
    ] {
        assert!(good.iter().all(|value| !read(&[(name, value)]).is_empty()), "{name}");
        assert!(bad.iter().all(|value| read(&[(name, value)]).is_empty()), "{name}");
    }
}

#[test]
fn what_is_not_a_plain_number_is_left_out() {
    for value in ["", "+8", "-8", " 512", "512 ", "5 12", "0x200", "5e2", "8k", "1_0", "\u{b2}", "512\u{661}"]
    {
        assert!(read(&[("blksize", value)]).is_empty(), "{value:?}");
    }
}

#[test]
fn unknown_options_do_not_disturb_the_others() {
    let expected = Options { blksize: Some(512), ..Options::default() };
    assert_eq!(read(&[("multicast", ""), ("blksize", "512"), ("", "")]), expected);
}

/// RFC 2347: nothing depends on the order.
#[test]
fn options_are_read_in_any_order_among_unknown_ones() {
    let known =
        [("blksize", "1428"), ("windowsize", "16"), ("timeout", "3"), ("tsize", "0"), ("rollover", "1")];
    let expected = read(&known);
    assert!(expected.blksize.is_some() && expected.rollover.is_some());
    // Each step is prime to five, so each is another order of all of them.
    for step in 1..known.len() {
        for start in 0..known.len() {
            let order = (0..known.len()).map(|turn| known[(start + turn * step) % known.len()]);
            let mixed: Vec<_> = order.flat_map(|option| [("utimeout", "500000"), option]).collect();
            assert_eq!(read(&mixed), expected, "{mixed:?}");
        }
    }
}

/// Only what they say counts, and as many of them as a request has room for.
#[test]
fn leading_zeros_change_nothing() {
    for zeros in [1, 20, 400] {
        let zeros = "0".repeat(zeros);
        assert_eq!(read(&[("blksize", &format!("{zeros}512"))]).blksize, Some(512));
        assert_eq!(read(&[("windowsize", &zeros)]).windowsize, None);
    }
}

#[test]
fn of_a_repeated_option_the_first_counts_even_where_it_is_wrong() {
    assert_eq!(read(&[("blksize", "8"), ("BLKSIZE", "9")]).blksize, Some(8));
    assert_eq!(read(&[("blksize", "7"), ("blksize", "9")]).blksize, None);
}

#[test]
fn a_server_grants_what_was_asked_up_to_its_limits() {
    let asked = Options {
        blksize: Some(9000),
        windowsize: Some(64),
        timeout_s: Some(3),
        tsize: Some(0),
        rollover: Some(Rollover::One),
    };
    let granted = negotiate(&asked, &Limits { blksize: 1468, windowsize: 16, ..Limits::NONE }, Some(77));
    assert_eq!(granted, Options { blksize: Some(1468), windowsize: Some(16), tsize: Some(77), ..asked });
    assert_eq!(negotiate(&asked, &NO_LIMITS, None), Options { tsize: None, ..asked });
}

#[test]
fn a_server_grants_nothing_that_was_not_asked() {
    assert!(negotiate(&Options::default(), &NO_LIMITS, Some(77)).is_empty());
}

#[test]
fn a_limit_below_an_options_range_refuses_the_option() {
    let asked = Options { blksize: Some(512), windowsize: Some(4), ..Options::default() };
    assert!(negotiate(&asked, &Limits { blksize: 0, windowsize: 0, ..Limits::NONE }, None).is_empty());
}

/// The OACK says the smaller windowsize. A window of one block, which is lock-step, is never refused for its size.
#[test]
fn a_window_is_granted_up_to_its_bytes() {
    let limits = Limits::default();
    for (blksize, asked, granted) in [
        (None, 65_535, 64),
        (Some(8), 65_535, 64),
        (Some(1468), 64, 64),
        (Some(2048), 64, 64),
        (Some(2049), 64, 63),
        (Some(8192), 64, 16),
        (Some(65_464), 64, 2),
        (Some(65_464), 1, 1),
    ] {
        let asked = Options { blksize, windowsize: Some(asked), ..Options::default() };
        let due = Options { windowsize: Some(granted), ..asked };
        assert_eq!(negotiate(&asked, &limits, None), due, "{blksize:?}");
    }
    let asked = Options { blksize: Some(9000), windowsize: Some(4), ..Options::default() };
    let granted = negotiate(&asked, &Limits { window_bytes: 0, ..Limits::NONE }, None);
    assert_eq!(granted, Options { windowsize: Some(1), ..asked });
}

#[test]
fn rolling_over_to_one_leaves_no_window_of_every_number() {
    let asked = Options { windowsize: Some(65_535), rollover: Some(Rollover::One), ..Options::default() };
    assert_eq!(negotiate(&asked, &NO_LIMITS, None).windowsize, Some(65_534));
}

#[test]
fn a_client_accepts_every_grant_of_our_server() {
    let asked = Options {
        blksize: Some(1428),
        windowsize: Some(16),
        timeout_s: Some(3),
        tsize: Some(5),
        rollover: Some(Rollover::Zero),
    };
    for limits in [
        NO_LIMITS,
        Limits::default(),
        Limits { blksize: 8, windowsize: 1, ..NO_LIMITS },
        Limits { blksize: 0, windowsize: 0, window_bytes: 0 },
    ] {
        let granted = negotiate(&asked, &limits, asked.tsize);
        let mut bytes = Vec::new();
        emit_oack(&mut bytes, &granted);
        assert_eq!(accept(&asked, list(&bytes)), Ok(granted));
    }
}

#[test]
fn a_client_refuses_an_oack_that_goes_beyond_its_request() {
    let asked =
        Options { blksize: Some(1024), windowsize: Some(4), timeout_s: Some(2), ..Options::default() };
    for (pairs, fault) in [
        ([("tsize", "1")].as_slice(), ProtocolFault::OptionNotAsked),
        (&[("multicast", "")], ProtocolFault::OptionNotAsked),
        (&[("blksize", "1025")], ProtocolFault::OptionAboveAsked(OptionName::Blksize)),
        (&[("windowsize", "5")], ProtocolFault::OptionAboveAsked(OptionName::Windowsize)),
        (&[("blksize", "7")], ProtocolFault::OptionOutOfRange(OptionName::Blksize)),
        (&[("windowsize", "x")], ProtocolFault::OptionOutOfRange(OptionName::Windowsize)),
        (&[("timeout", "3")], ProtocolFault::OptionChanged(OptionName::Timeout)),
        (&[("blksize", "8"), ("blksize", "8")], ProtocolFault::OptionRepeated),
    ] {
        assert_eq!(accepted(asked, pairs), Err(fault), "{pairs:?}");
    }
}

#[test]
fn without_options_a_transfer_is_that_of_rfc_1350() {
    let agreed = Agreed { blksize: 512, windowsize: 1, timeout_s: None, rollover: Rollover::Zero };
    assert_eq!(Agreed::from(&Options::default()), agreed);
}

#[test]
fn an_oack_to_a_request_without_options_is_a_fault_even_where_it_grants_none() {
    for pairs in [[].as_slice(), &[("blksize", "512")]] {
        assert_eq!(accepted(Options::default(), pairs), Err(ProtocolFault::OackNotAsked));
    }
}

#[test]
fn a_fault_about_an_option_names_the_rfc_of_that_option() {
    let section = |name| ProtocolFault::OptionOutOfRange(name).rfc_section();
    assert_eq!(section(OptionName::Windowsize), "RFC 7440 section 3");
    assert!(section(OptionName::Blksize).starts_with("RFC 2348"));
    assert!(section(OptionName::Tsize).starts_with("RFC 2349"));
}
