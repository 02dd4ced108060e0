//! What a peer did wrong: counted by kind, with the first datagram of each kind kept as evidence.
//! A peer's fault is data and never an error of the run.

use std::fmt::Write as _;

use tftpbench_net::Received;
use tftpbench_proto::{Decoded, ErrorCode, ProtocolFault};

/// Faults of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable name of the kind, such as `stray_tid` or `too_short`.
    pub kind: &'static str,
    /// Where an RFC says otherwise; `None` for wrong contents, of which no RFC speaks.
    pub rfc_section: Option<&'static str>,
    /// How often it was seen.
    pub count: u64,
    /// The first one, decoded, with its length and its bytes in hexadecimal (at most 64 of them): those of DATA only
    /// where they were asked for, since files may be secret. Printable ASCII.
    pub example: String,
}

/// ERRORs of one code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerError {
    /// Their code.
    pub code: u16,
    /// How often it came.
    pub count: u64,
    /// The first one's message, cut to 160 characters. Printable ASCII.
    pub message: String,
}

/// What a fault is called and where it is forbidden.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    name: &'static str,
    rfc_section: Option<&'static str>,
}

/// Bytes that are not those of the file.
const WRONG_CONTENTS: Kind = Kind { name: "wrong_contents", rfc_section: None };

/// Bytes behind the end that the file must have.
pub(crate) const LONGER_THAN_EXPECTED: Kind = Kind { name: "longer_than_expected", rfc_section: None };

impl From<ProtocolFault> for Kind {
    fn from(fault: ProtocolFault) -> Kind {
        Kind { name: fault.kind(), rfc_section: Some(fault.rfc_section()) }
    }
}

/// All kinds seen; few, so a list that is searched from the front.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    seen: Vec<Fault>,
    errors: Vec<PeerError>,
    /// Examples show file contents, too.
    show_payload: bool,
    /// Datagrams of another TID than their transfer's, whatever the cause.
    pub(crate) strays: u64,
    /// Datagrams for a transfer that had gone. No fault: what we sent again may be answered again.
    pub(crate) late_datagrams: u64,
}

/// The opcode of DATA (RFC 1350 section 5), which file contents follow.
const DATA: [u8; 2] = [0, 3];
const EXAMPLE_BYTES: usize = 64;
const TEXT_CHARS_MAX: usize = 160;
/// A peer can send 65,536 codes.
const CODES_MAX: usize = 16;

impl Faults {
    pub(crate) fn new(show_payload: bool) -> Faults {
        Faults { show_payload, ..Faults::default() }
    }

    pub(crate) fn record(&mut self, kind: impl Into<Kind>, received: &Received<'_>) {
        self.count(kind.into(), |show_payload| example(received, show_payload));
    }

    /// A block that differs from the file's first at this offset of the file.
    pub(crate) fn record_wrong_contents(&mut self, received: &Received<'_>, offset: u64) {
        self.count(WRONG_CONTENTS, |show_payload| {
            format!("{}, first wrong byte at offset {offset} of the file", example(received, show_payload))
        });
    }

    fn count(&mut self, Kind { name, rfc_section }: Kind, example: impl FnOnce(bool) -> String) {
        match self.seen.iter_mut().find(|fault| fault.kind == name) {
            Some(fault) => fault.count += 1,
            None => {
                let example = example(self.show_payload);
                self.seen.push(Fault { kind: name, rfc_section, count: 1, example });
            }
        }
    }

    /// An ERROR that ended a transfer; of more than 16 codes the later ones are not kept.
    pub(crate) fn record_error(&mut self, code: ErrorCode, message: &[u8]) {
        if let Some(error) = self.errors.iter_mut().find(|error| error.code == code.0) {
            error.count += 1;
        } else if self.errors.len() < CODES_MAX {
            self.errors.push(PeerError { code: code.0, count: 1, message: cut(message.escape_ascii()) });
        }
    }

    pub(crate) fn merge(&mut self, other: Faults) {
        for fault in other.seen {
            match self.seen.iter_mut().find(|known| known.kind == fault.kind) {
                Some(known) => known.count += fault.count,
                None => self.seen.push(fault),
            }
        }
        for error in other.errors {
            match self.errors.iter_mut().find(|known| known.code == error.code) {
                Some(known) => known.count += error.count,
                None => self.errors.push(error),
            }
        }
        self.strays += other.strays;
        self.late_datagrams += other.late_datagrams;
    }

    pub(crate) fn into_lists(self) -> (Vec<Fault>, Vec<PeerError>) {
        (self.seen, self.errors)
    }
}

fn example(received: &Received<'_>, show_payload: bool) -> String {
    let datagram = received.payload;
    // Of a datagram beyond what was agreed only the beginning is received.
    let more = if received.truncated { " or more" } else { "" };
    let size = format!("{}{more} bytes", datagram.len());
    let decoded = cut(Decoded(datagram));
    if datagram.starts_with(&DATA) && !show_payload {
        return format!("{decoded} [{size}]");
    }
    let shown = &datagram[..datagram.len().min(EXAMPLE_BYTES)];
    let mut hex = String::with_capacity(2 * shown.len());
    for byte in shown {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    let rest = if shown.len() < datagram.len() { "..." } else { "" };
    format!("{decoded} [{size}: {hex}{rest}]")
}

/// The text, or the beginning of a long one.
fn cut(text: impl ToString) -> String {
    let text = text.to_string();
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use tftpbench_proto::Malformed;

    use super::*;

    fn datagram(payload: &[u8]) -> Received<'_> {
        let peer = "127.0.0.1:69".parse().unwrap();
        Received { payload, peer, stamp_realtime_ns: None, local: None, truncated: false, is_to_many: false }
    }

    #[test]
    fn the_first_example_of_each_kind_is_kept_and_counts_add_up_when_merged() {
        let too_short = ProtocolFault::Malformed(Malformed::TooShort);
        let (mut one, mut two) = (Faults::default(), Faults::default());
        one.record(too_short, &datagram(&[0]));
        one.record(too_short, &datagram(&[1, 2]));
        two.record(too_short, &datagram(&[3]));
        two.record(ProtocolFault::StrayTid, &datagram(&[0, 4, 0, 1]));
        two.record(WRONG_CONTENTS, &datagram(&[0, 3, 0, 1]));
        one.merge(two);
        let (list, _) = one.into_lists();
        let kinds: Vec<_> = list.iter().map(|fault| (fault.kind, fault.count, fault.rfc_section)).collect();
        assert_eq!(
            kinds,
            [
                ("too_short", 3, Some("RFC 1350 section 5")),
                ("stray_tid", 1, Some("RFC 1350 section 4")),
                ("wrong_contents", 1, None)
            ]
        );
        assert!(list[0].example.ends_with("[1 bytes: 00]"), "{}", list[0].example);
    }

    #[test]
    fn whatever_a_peer_sends_is_short_and_printable_in_an_example() {
        let options = [b"\0\x06".as_slice(), &b"\x1b[2J\0\xff\0".repeat(70)].concat();
        let error = [b"\0\x05\0\0".as_slice(), &[0x1b; 60_000]].concat();
        for payload in [options.as_slice(), &error, &[7; 2_000], &[]] {
            let example = example(&datagram(payload), true);
            assert!(example.len() < 350, "{}", example.len());
            assert!(example.chars().all(|char| char.is_ascii_graphic() || char == ' '), "{example}");
            assert!(example.contains(&format!("{} bytes", payload.len())), "{example}");
        }
    }

    #[test]
    fn of_a_datagram_that_was_cut_the_example_says_so() {
        let cut = Received { truncated: true, ..datagram(&[0, 3, 0, 1, 0]) };
        assert_eq!(example(&cut, true), "DATA block 1, 1 bytes [5 or more bytes: 0003000100]");
    }

    #[test]
    fn file_contents_are_shown_where_asked_for_only_and_other_datagrams_always() {
        let secret = datagram(&[0, 3, 0, 7, 0x5e, 0xc2]);
        assert_eq!(example(&secret, false), "DATA block 7, 2 bytes [6 bytes]");
        assert!(example(&datagram(&[0, 3, 0x5e]), false).ends_with(" [3 bytes]"));
        assert!(example(&datagram(&[0, 9, 0]), false).ends_with(" [3 bytes: 000900]"));
        let mut faults = Faults::default();
        faults.record_wrong_contents(&secret, 3_073);
        faults.record_wrong_contents(&secret, 9);
        let (list, _) = faults.into_lists();
        assert_eq!(
            (list[0].count, list[0].example.as_str()),
            (2, "DATA block 7, 2 bytes [6 bytes], first wrong byte at offset 3073 of the file")
        );
    }

    #[test]
    fn the_first_message_of_each_code_is_kept_and_no_more_codes_than_16() {
        let (mut one, mut two) = (Faults::default(), Faults::default());
        for code in 0..100 {
            one.record_error(ErrorCode(code), b"\x1b[2Jno");
            one.record_error(ErrorCode(code), &[b'x'; 600]);
        }
        two.record_error(ErrorCode(0), b"later");
        one.merge(two);
        let (_, errors) = one.into_lists();
        assert_eq!(errors.len(), CODES_MAX);
        assert_eq!((errors[0].count, errors[0].message.as_str()), (3, "\\x1b[2Jno"));
        assert!(errors.iter().all(|error| error.message.len() < 170));
    }
}
