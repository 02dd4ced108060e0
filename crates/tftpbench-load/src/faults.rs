//! What a peer did wrong: counted by kind, with the first datagram of each kind kept as evidence.
//! A peer's fault is data and never an error of the run.

use tftpbench_proto::Decoded;

/// Faults of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable name of the kind, such as `stray_tid` or `too_short`.
    pub kind: &'static str,
    /// How often it was seen.
    pub count: u64,
    /// The first one, decoded, with its bytes in hexadecimal (at most 64 of them).
    pub example: String,
}

/// All kinds seen; few, so a list that is searched from the front.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    seen: Vec<Fault>,
}

const EXAMPLE_BYTES: usize = 64;

impl Faults {
    pub(crate) fn record(&mut self, kind: &'static str, datagram: &[u8]) {
        if let Some(fault) = self.seen.iter_mut().find(|fault| fault.kind == kind) {
            fault.count += 1;
            return;
        }
        self.seen.push(Fault { kind, count: 1, example: example(datagram) });
    }

    pub(crate) fn merge(&mut self, other: Faults) {
        for fault in other.seen {
            match self.seen.iter_mut().find(|known| known.kind == fault.kind) {
                Some(known) => known.count += fault.count,
                None => self.seen.push(fault),
            }
        }
    }

    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.seen.iter().filter(|fault| fault.kind == kind).map(|fault| fault.count).sum()
    }

    pub(crate) fn into_list(self) -> Vec<Fault> {
        self.seen
    }
}

fn example(datagram: &[u8]) -> String {
    let shown = &datagram[..datagram.len().min(EXAMPLE_BYTES)];
    let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    let cut = if shown.len() < datagram.len() { "..." } else { "" };
    format!("{} [{hex}{cut}]", Decoded(datagram))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_example_of_each_kind_is_kept_and_counts_add_up_when_merged() {
        let (mut one, mut two) = (Faults::default(), Faults::default());
        one.record("too_short", &[0]);
        one.record("too_short", &[1, 2]);
        two.record("too_short", &[3]);
        two.record("stray_tid", &[0, 4, 0, 1]);
        one.merge(two);
        assert_eq!(one.count("too_short"), 3);
        let list = one.into_list();
        assert_eq!(list.len(), 2);
        assert!(list[0].example.ends_with("[00]"), "{}", list[0].example);
    }

    #[test]
    fn a_long_datagram_is_cut_in_the_example() {
        assert!(example(&[7u8; 2_000]).len() < 300);
    }
}
