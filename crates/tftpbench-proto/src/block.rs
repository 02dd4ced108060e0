//! Block numbers: our 64-bit index, which only grows, and the 16 bits of it on the wire.
//!
//! Must never know what a block holds.

/// The number that follows block 65,535.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rollover {
    /// 0, as most implementations do.
    #[default]
    Zero,
    /// 1, so that 0 is only ever the handshake's.
    One,
}

/// Half of the numbers: a block further ahead than this is taken to be one behind.
pub(crate) const HALF: u64 = 32_768;

/// The number on the wire of the block with this index. Blocks count from 1; index 0 is what ACK 0
/// acknowledges.
pub(crate) fn wire(index: u64, rollover: Rollover) -> u16 {
    match rollover {
        Rollover::Zero => (index & 0xffff) as u16,
        Rollover::One if index == 0 => 0,
        Rollover::One => ((index - 1) % 65_535 + 1) as u16,
    }
}

/// How many blocks ahead of `from` the next block with this number is; `None` where no block has it.
pub(crate) fn ahead(from: u64, number: u16, rollover: Rollover) -> Option<u64> {
    let here = wire(from, rollover);
    match rollover {
        Rollover::Zero => Some(u64::from(number.wrapping_sub(here))),
        Rollover::One if number == 0 => (from == 0).then_some(0),
        Rollover::One if number >= here => Some(u64::from(number - here)),
        Rollover::One => Some(u64::from(number) + 65_535 - u64::from(here)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_roll_over_to_zero_or_one() {
        let around = |rollover| [65_534, 65_535, 65_536, 65_537].map(|index| wire(index, rollover));
        assert_eq!(around(Rollover::Zero), [65_534, 65_535, 0, 1]);
        assert_eq!(around(Rollover::One), [65_534, 65_535, 1, 2]);
    }

    #[test]
    fn ahead_inverts_wire_across_every_wrap() {
        for rollover in [Rollover::Zero, Rollover::One] {
            for from in (0..3).chain(65_530..65_540).chain(131_060..131_080) {
                for step in (0..40).chain([32_767, 65_000, 65_534]) {
                    assert_eq!(
                        ahead(from, wire(from + step, rollover), rollover),
                        Some(step),
                        "{from} + {step}"
                    );
                }
            }
        }
    }

    #[test]
    fn rolling_over_to_one_never_uses_zero_again() {
        assert_eq!(ahead(0, 0, Rollover::One), Some(0));
        assert_eq!(ahead(65_535, 0, Rollover::One), None);
    }
}
