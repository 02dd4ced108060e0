//! The stamps of one transfer: when its request went out, and the block round trip in progress.
//!
//! A round trip begins just before the send call of the last fresh ACK (read) or DATA (write) and ends with the
//! kernel's stamp of the answer. Karn's rule: where more than one datagram of ours may have caused an answer, the round
//! trip is left out and counted. Reads no clock.

use tftpbench_proto::Transmit;

#[derive(Debug)]
pub(crate) struct Exchange {
    /// The request has been queued or sent.
    requested: bool,
    /// It has been queued or sent again.
    request_repeated: bool,
    /// When it was sent.
    started_ns: Option<u64>,
    current: RoundTrip,
    /// A datagram of the exchange was sent again, or an ACK reported a loss.
    ambiguous: bool,
    /// Blocks that the last ACK of ours covered, or the highest one that was sent.
    reached: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoundTrip {
    /// Nothing that is timed has been sent since the last answer.
    None,
    /// It begins when what is queued goes out.
    Queued,
    Since(u64),
}

/// What an answer says about its round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was one of this many nanoseconds.
    Took(u64),
    /// Which datagram was answered cannot be known.
    Ambiguous,
    /// It belongs to a round trip that has had its answer: a later block of a window.
    Later,
}

impl Exchange {
    pub(crate) fn new() -> Exchange {
        let current = RoundTrip::None;
        Exchange {
            requested: false,
            request_repeated: false,
            started_ns: None,
            current,
            ambiguous: false,
            reached: 0,
        }
    }

    /// A datagram is queued; `blocks` have moved in order so far. True if it was sent before.
    pub(crate) fn queue(&mut self, transmit: &Transmit, blocks: u64, windowsize: u16) -> bool {
        match *transmit {
            Transmit::Opening => {
                self.request_repeated = std::mem::replace(&mut self.requested, true);
                return self.request_repeated;
            }
            Transmit::Error { .. } => return false,
            Transmit::Data { again: true, .. } | Transmit::Ack { again: true, .. } => {
                self.ambiguous = true;
                return true;
            }
            Transmit::Data { again: false, .. } => self.reached += 1,
            Transmit::Ack { again: false, .. } => {
                // RFC 7440 section 4: an ACK in mid-window tells of a gap, and blocks of the old flight may still come.
                self.ambiguous |= blocks > 0 && blocks - self.reached < u64::from(windowsize);
                self.reached = blocks;
            }
        }
        self.current = RoundTrip::Queued;
        false
    }

    /// What is queued goes out now.
    pub(crate) fn flush(&mut self, now_ns: u64) {
        if self.requested {
            self.started_ns.get_or_insert(now_ns);
        }
        if self.current == RoundTrip::Queued {
            self.current = RoundTrip::Since(now_ns);
        }
    }

    /// A datagram that arrived at `at_ns` brought the transfer to `blocks`; in a write it `acknowledges` them.
    pub(crate) fn answer(&mut self, at_ns: u64, blocks: u64, acknowledges: bool) -> Answer {
        // An ACK of less than was sent tells of a loss.
        let partial = acknowledges && blocks < self.reached;
        let ambiguous = std::mem::take(&mut self.ambiguous) || partial;
        match std::mem::replace(&mut self.current, RoundTrip::None) {
            _ if ambiguous => Answer::Ambiguous,
            RoundTrip::Since(sent_ns) => Answer::Took(at_ns.saturating_sub(sent_ns)),
            // Queued: the peer did not wait for it.
            RoundTrip::Queued | RoundTrip::None => Answer::Later,
        }
    }

    /// Whether the request went out more than once.
    pub(crate) fn request_was_repeated(&self) -> bool {
        self.request_repeated
    }

    /// When the request was sent.
    pub(crate) fn started_ns(&self) -> Option<u64> {
        self.started_ns
    }

    /// No answer to what was sent last can have arrived before this.
    pub(crate) fn earliest_answer_ns(&self) -> u64 {
        match self.current {
            RoundTrip::Since(sent_ns) => sent_ns,
            RoundTrip::Queued | RoundTrip::None => self.started_ns.unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(again: bool) -> Transmit {
        Transmit::Ack { block: 0, again }
    }

    fn data(again: bool) -> Transmit {
        Transmit::Data { block: 0, offset: 0, len: 0, again }
    }

    #[test]
    fn a_round_trip_begins_with_the_flush_not_with_the_queueing() {
        let mut exchange = Exchange::new();
        exchange.queue(&Transmit::Opening, 0, 1);
        exchange.flush(100);
        exchange.queue(&ack(false), 1, 1);
        exchange.flush(250);
        exchange.flush(999);
        assert_eq!(exchange.started_ns(), Some(100));
        assert_eq!(exchange.answer(300, 2, false), Answer::Took(50));
        assert_eq!(exchange.answer(400, 3, false), Answer::Later);
    }

    #[test]
    fn the_answer_to_a_datagram_sent_again_is_left_out_and_the_next_is_not() {
        let mut exchange = Exchange::new();
        assert!(!exchange.queue(&ack(false), 1, 1));
        assert!(exchange.queue(&ack(true), 1, 1));
        exchange.flush(10);
        assert_eq!(exchange.answer(15, 2, false), Answer::Ambiguous);
        exchange.queue(&ack(false), 2, 1);
        exchange.flush(20);
        assert_eq!(exchange.answer(25, 3, false), Answer::Took(5));
    }

    #[test]
    fn a_request_sent_again_counts_but_does_not_move_the_start() {
        let mut exchange = Exchange::new();
        assert!(!exchange.queue(&Transmit::Opening, 0, 1));
        exchange.flush(10);
        assert!(exchange.queue(&Transmit::Opening, 0, 1));
        exchange.flush(20);
        assert_eq!(exchange.started_ns(), Some(10));
    }

    #[test]
    fn an_answer_that_comes_before_its_ack_has_left_tells_no_round_trip() {
        let mut exchange = Exchange::new();
        exchange.queue(&ack(false), 1, 1);
        assert_eq!(exchange.answer(1_000_000, 2, false), Answer::Later);
    }

    #[test]
    fn a_window_that_lost_a_block_tells_no_round_trip() {
        let mut reading = Exchange::new();
        reading.queue(&ack(false), 4, 4);
        reading.queue(&ack(false), 6, 4);
        reading.flush(10);
        assert_eq!(reading.answer(20, 7, false), Answer::Ambiguous, "the ACK reported a gap behind block 6");

        let mut writing = Exchange::new();
        for _ in 0..4 {
            writing.queue(&data(false), 0, 4);
        }
        writing.flush(10);
        assert_eq!(writing.answer(20, 3, true), Answer::Ambiguous, "block 4 is lost");
        for _ in 0..4 {
            writing.queue(&data(false), 3, 4);
        }
        writing.flush(30);
        assert_eq!(writing.answer(40, 8, true), Answer::Took(10));
    }
}
