//! What is written down of a transfer: what its first answer granted, and a row once it is decided.
//!
//! Never sends, never reads a clock.

use tftpbench_proto::{Failure, OptionList, Options, Outcome, Packet, accept};

use super::{Client, Machine, either};
use crate::boot_figures::BootReason;
use crate::booting::Ended;
use crate::ended::{TransferOutcome, TransferRow};
use crate::endpoints::Via;
use crate::recorder::{Granted, Recorder};

impl Client {
    /// Writes down what holds for the transfer from its first answer on. An ERROR or a broken OACK grants nothing; DATA
    /// or ACK without OACK grants what RFC 1350 does (RFC 2347).
    pub(super) fn record_granted(&self, packet: &Packet<'_>, recorder: &mut Recorder) {
        let (answered, agreed) = either!(&self.machine, machine => (machine.answered(), machine.agreed()));
        let named = match packet {
            _ if !answered => return,
            Packet::Error { .. } => return,
            Packet::Oack(options) => self.granted(*options),
            _ => Options::default(),
        };
        let Options { blksize, windowsize, tsize, .. } = named;
        recorder.granted.add(Granted {
            blksize: Some(agreed.blksize),
            windowsize: Some(agreed.windowsize),
            answered: 1,
            times: [blksize.is_some(), windowsize.is_some(), tsize.is_some()].map(u64::from),
        });
    }

    fn granted(&self, oack: OptionList<'_>) -> Options {
        let asked = either!(&self.machine, machine => machine.asked().copied()).unwrap_or_default();
        accept(&asked, oack).unwrap_or_default()
    }

    /// How a decided transfer ended, as its boot sees it.
    pub(crate) fn ended(&self, end_ns: u64) -> Option<Ended> {
        let decided = either!(&self.machine, machine => machine.outcome())?;
        let (outcome, error_code) = classify(decided, self.ended_as);
        let reason = match decided {
            _ if self.mismatch => BootReason::WrongBytes,
            Outcome::Completed => BootReason::None,
            Outcome::TimedOut if self.first_response_ns.is_none() => BootReason::NoAnswer,
            Outcome::TimedOut => BootReason::FellSilent,
            Outcome::Failed(Failure::Peer { .. }) => BootReason::Refused,
            Outcome::Failed(Failure::Protocol(_)) => BootReason::BrokeProtocol,
            Outcome::Failed(Failure::Local { .. }) => BootReason::None,
        };
        let started_ns = self.exchange.started_ns().unwrap_or(end_ns);
        let retransmissions = either!(&self.machine, machine => machine.counts().retransmissions);
        Some(Ended { outcome, error_code, reason, started_ns, end_ns, bytes: self.bytes, retransmissions })
    }

    /// Writes the row of a transfer that has just been decided and returns when it ended; later it keeps the row true.
    pub(crate) fn record(&mut self, now_ns: u64, recorder: &mut Recorder) -> Option<u64> {
        let counts = either!(&self.machine, machine => *machine.counts());
        recorder.duplicates += counts.duplicates - std::mem::replace(&mut self.duplicates, counts.duplicates);
        if let Some(row) = self.row {
            recorder.transfers.sent_again(row, self.number, counts.retransmissions);
            return None;
        }
        let decided = either!(&self.machine, machine => machine.outcome())?;
        let (outcome, error_code) = classify(decided, self.ended_as);
        let started_ns = self.exchange.started_ns().unwrap_or(now_ns);
        // The server's last word ended it, and not our reading it; silence and a stop have only our clock.
        let end_ns = match outcome {
            TransferOutcome::Completed | TransferOutcome::Failed => self.heard_ns.max(started_ns),
            TransferOutcome::TimedOut | TransferOutcome::Interrupted | TransferOutcome::Late => {
                now_ns.max(started_ns)
            }
        };
        if outcome == TransferOutcome::Completed {
            recorder.complete(end_ns);
            // A read that ended too early has wrong contents even if every byte of it was right.
            self.mismatch |= self.expected_bytes.is_some_and(|expected| self.bytes != expected);
        }
        recorder.bytes_verified += self.verified_bytes;
        recorder.content_mismatches += u64::from(self.mismatch);
        if let Via::Own(socket) = &self.via {
            recorder.receive_drops += socket.drops();
        }
        let since_start = |at_ns: u64| at_ns as i64 - recorder.start_ns as i64;
        let row = TransferRow {
            number: self.number,
            intended_start_ns: since_start(self.intended_ns),
            actual_start_ns: since_start(started_ns),
            first_response_ns: self.first_response_ns.map_or(-1, since_start),
            end_ns: since_start(end_ns),
            bytes: self.bytes,
            retransmissions: counts.retransmissions,
            outcome,
            error_code,
            machine: self.boot.as_ref().map_or(-1, |boot| boot.number as i64),
            step: self.boot.as_ref().map_or(-1, |boot| boot.step as i16 + 1),
        };
        self.row = Some(recorder.end(row));
        Some(end_ns)
    }
}

/// How the transfer counts, and the code of the ERROR that ended it. `ended_as` is for those that we ended, and for those
/// that were to be refused.
fn classify(decided: &Outcome, ended_as: Option<TransferOutcome>) -> (TransferOutcome, i32) {
    match decided {
        Outcome::Completed => (TransferOutcome::Completed, -1),
        Outcome::TimedOut => (TransferOutcome::TimedOut, -1),
        Outcome::Failed(Failure::Peer { code, .. }) => {
            (ended_as.unwrap_or(TransferOutcome::Failed), i32::from(code.0))
        }
        Outcome::Failed(Failure::Protocol(_)) => (TransferOutcome::Failed, -1),
        Outcome::Failed(Failure::Local { .. }) => (ended_as.unwrap_or(TransferOutcome::Interrupted), -1),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::ops::Range;

    use tftpbench_net::{Received, SendBatch};
    use tftpbench_proto::{Backoff, Operation, Options, Timing, Transmit};

    use super::*;
    use crate::client::Shared;
    use crate::config::{Arrivals, Extent, LoadConfig, Rows, Sockets, Verify};
    use crate::faults::Faults;

    const OACK: &[u8] = b"\0\x06blksize\x00800\0";
    const OACK_OF_TOO_MUCH: &[u8] = b"\0\x06blksize\x001025\0";
    const DATA: &[u8] = b"\0\x03\0\x01";
    const ERROR: &[u8] = b"\0\x05\0\x01\0";

    fn config() -> LoadConfig {
        let backoff = Backoff::Constant;
        LoadConfig {
            server: "127.0.0.1:69".parse().unwrap(),
            allow_remote: false,
            operation: Operation::Read,
            name: "f".to_owned(),
            distinct_files: 0,
            file_size_bytes: 0,
            size_is_known: false,
            seed: 0,
            verify: Verify::Full,
            verify_against: Vec::new(),
            show_payload: false,
            options: Options { blksize: Some(1_024), windowsize: Some(4), ..Options::default() },
            timing: Timing { timeout_ns: 1, retries: 0, backoff, adaptive_floor_ns: None, timeout_max_ns: 1 },
            arrivals: Arrivals::ClosedLoop { concurrency: 1, ramp_ns: 0 },
            share: crate::open_loop::HostShare::WHOLE,
            workers: 1,
            cpus: Vec::new(),
            sockets: Sockets::Shared,
            network: None,
            extent: Extent::Transfers { count: 1, limit_ns: 1 },
            drain_ns: 0,
            busy_poll_ns: 0,
            brake: crate::brake::Brake::default(),
            watch_for_answer: false,
            receive_buffer_bytes: 0,
            boots: None,
            rows: Rows::All,
            rows_max: 5_000_000,
        }
    }

    /// What is written down of one transfer that gets these datagrams, all with the same stamp.
    fn recorded(datagrams: &[&[u8]]) -> (TransferRow, Granted) {
        let (config, mut recorder) = (config(), Recorder::new(0, (0, u64::MAX)));
        let via = Via::Shared { index: 0, key: 0, source: Ipv4Addr::LOCALHOST.into() };
        let mut client = Client::new(&config, via, 0, 0, 0);
        client.exchange.queue(&Transmit::Opening, 0, 1);
        client.exchange.flush(1);
        let mut shared = Shared {
            config: &config,
            recorder: &mut recorder,
            faults: &mut Faults::default(),
            sockets: &mut [],
            ring: None,
            batch: &mut SendBatch::new(1, 1),
            scratch: &mut [],
            realtime_offset_ns: 0,
        };
        for payload in datagrams {
            let (peer, stamp_realtime_ns) = (config.server, None);
            let received = Received {
                payload,
                peer,
                stamp_realtime_ns,
                local: None,
                is_to_many: false,
                truncated: false,
            };
            client.handle_datagram(7, &received, &mut shared);
        }
        client.handle_timeout(8);
        client.record(8, &mut recorder);
        (recorder.transfers.rows()[0], recorder.granted)
    }

    #[test]
    fn a_row_tells_what_was_refused_from_what_failed_later_and_silence_from_a_stall() {
        let row_of = |datagrams: &[&[u8]]| {
            let (row, _) = recorded(datagrams);
            (row.outcome, row.error_code, row.first_response_ns >= 0, row.first_response_ns == row.end_ns)
        };
        assert_eq!(row_of(&[ERROR]), (TransferOutcome::Failed, 1, true, true));
        assert_eq!(
            row_of(&[ERROR, ERROR]),
            (TransferOutcome::Failed, 1, true, true),
            "refused twice is refused"
        );
        assert_eq!(row_of(&[OACK, ERROR]), (TransferOutcome::Failed, 1, true, false));
        assert_eq!(row_of(&[DATA, ERROR]), (TransferOutcome::Failed, 1, true, false));
        assert_eq!(row_of(&[OACK_OF_TOO_MUCH]), (TransferOutcome::Failed, -1, true, true));
        assert_eq!(row_of(&[]), (TransferOutcome::TimedOut, -1, false, false));
        assert_eq!(row_of(&[b"garbage"]), (TransferOutcome::TimedOut, -1, false, false));
        assert_eq!(row_of(&[OACK]), (TransferOutcome::TimedOut, -1, true, false));
    }

    const MS: u64 = 1_000_000;
    const NEVER: Range<u64> = 0..0;

    /// How a transfer counts whose timeout is 100 ms, and which a run ends after 1 s. It sends its request at 0, and at
    /// `sent_ms` what it owes to a datagram that came at `heard_ms`; its loop stands still at these times.
    fn ended(heard_ms: u64, sent_ms: u64, still_ms: [Range<u64>; 2]) -> TransferOutcome {
        let mut config = config();
        config.timing.timeout_ns = 100 * MS;
        let mut recorder = Recorder::new(0, (0, u64::MAX));
        for at_ms in (0..=1000).filter(|at_ms| !still_ms.iter().any(|still| still.contains(at_ms))) {
            recorder.looked(at_ms * MS);
        }
        let via = Via::Shared { index: 0, key: 0, source: Ipv4Addr::LOCALHOST.into() };
        let mut client = Client::new(&config, via, 0, 0, 0);
        client.exchange.queue(&Transmit::Opening, 0, 1);
        client.exchange.flush(0);
        client.heard_ns = heard_ms * MS;
        client.exchange.queue(&Transmit::Ack { block: 1, again: false }, 1, 1);
        client.exchange.flush(sent_ms * MS);
        client.exchange.queue(&Transmit::Ack { block: 1, again: true }, 1, 1);
        client.exchange.flush(950 * MS);
        client.interrupt(1000 * MS, &recorder);
        client.record(1000 * MS, &mut recorder);
        recorder.transfers.rows()[0].outcome
    }

    #[test]
    fn a_server_is_silent_for_as_long_as_the_client_waited_and_not_while_its_own_loop_stood_still() {
        assert_eq!(
            ended(890, 890, [NEVER; 2]),
            TransferOutcome::TimedOut,
            "that it was asked again changes nothing"
        );
        assert_eq!(ended(910, 910, [NEVER; 2]), TransferOutcome::Interrupted);
        assert_eq!(ended(500, 910, [NEVER; 2]), TransferOutcome::Interrupted, "it was not answered before");
        assert_eq!(
            ended(500, 500, [501..1000, NEVER]),
            TransferOutcome::Interrupted,
            "its answer may lie unread"
        );
        assert_eq!(ended(500, 500, [501..700, 750..1000]), TransferOutcome::Interrupted);
        assert_eq!(ended(500, 500, [501..700, 850..1000]), TransferOutcome::TimedOut);
        assert_eq!(ended(500, 500, [100..400, NEVER]), TransferOutcome::TimedOut, "that was before");
    }

    #[test]
    fn what_was_granted_is_known_from_the_first_answer_on_and_an_error_grants_nothing() {
        let granted = |datagrams: &[&[u8]]| {
            let (_, Granted { blksize, windowsize, answered, times }) = recorded(datagrams);
            assert_eq!(answered, u64::from(blksize.is_some()));
            assert_eq!(times, [u64::from(blksize == Some(800)), 0, 0], "an option that an OACK names");
            blksize.zip(windowsize)
        };
        assert_eq!(granted(&[OACK]), Some((800, 1)));
        assert_eq!(
            granted(&[DATA]),
            Some((512, 1)),
            "RFC 2347: an option that is not acknowledged is not in force"
        );
        assert_eq!(granted(&[DATA, OACK, ERROR]), Some((512, 1)));
        for nothing in [&[][..], &[ERROR], &[OACK_OF_TOO_MUCH], &[b"garbage"]] {
            assert_eq!(granted(nothing), None);
        }
    }
}
