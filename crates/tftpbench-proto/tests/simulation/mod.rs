//! A client and a server machine on two ends of a bad link, in virtual time. For this crate's tests only.
//!
//! The ends are as small as a real caller can be: they follow the drive loop of the crate's documentation,
//! and every datagram crosses the link as bytes. The server's machine is built from the request when that
//! arrives.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tftpbench_proto::{
    Agreed, Backoff, Counts, HEADER_LEN, Limits, Mode, Operation, Options, Outcome, Packet, Receiver, Sender,
    Timing, Transmit, emit_ack, emit_data_header, emit_error, emit_oack, emit_request, negotiate,
};

pub(crate) const MS: u64 = 1_000_000;
/// No test comes near it; one that does has a machine that never ends.
const STEPS_MAX: u64 = 20_000_000;

/// What the link does to each datagram. Shares are per mille.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Impairment {
    pub(crate) loss: u64,
    pub(crate) duplicate: u64,
    pub(crate) reorder: u64,
    /// One way.
    pub(crate) delay_ns: u64,
    /// Nothing at all passes in between.
    pub(crate) blackout_ns: (u64, u64),
    /// What befalls the datagram of this number, counted over both directions from 0.
    pub(crate) fault: Option<(u64, Fault)>,
    /// So many of the first DATA with this block number are lost.
    pub(crate) data_lost: Option<(u16, u64)>,
}

/// What may befall one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Lost,
    Doubled,
    /// By so much, so that later ones overtake it.
    Late(u64),
}

/// One transfer to simulate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) operation: Operation,
    pub(crate) length: u64,
    pub(crate) asked: Options,
    pub(crate) limits: Limits,
    pub(crate) timing: Timing,
    pub(crate) link: Impairment,
    pub(crate) seed: u64,
}

impl Setup {
    pub(crate) fn new(operation: Operation, length: u64, asked: Options) -> Setup {
        Setup {
            operation,
            length,
            asked,
            limits: Limits::NONE,
            timing: ADAPTIVE,
            link: Impairment { delay_ns: MS, ..Impairment::default() },
            seed: 1,
        }
    }
}

pub(crate) const ADAPTIVE: Timing = Timing {
    timeout_ns: 1000 * MS,
    retries: 12,
    backoff: Backoff::Exponential,
    adaptive_floor_ns: Some(20 * MS),
    timeout_max_ns: 8000 * MS,
};

/// How it went.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) sender: Option<Outcome>,
    pub(crate) receiver: Option<Outcome>,
    pub(crate) sender_counts: Counts,
    pub(crate) receiver_counts: Counts,
    pub(crate) received_bytes: u64,
    /// Until the sender knew the outcome.
    pub(crate) duration_ns: u64,
    /// Both ways, before the link did its worst.
    pub(crate) datagrams: u64,
    pub(crate) data_datagrams: u64,
    pub(crate) agreed: Option<Agreed>,
}

impl Report {
    pub(crate) fn completed(&self) -> bool {
        self.sender == Some(Outcome::Completed) && self.receiver == Some(Outcome::Completed)
    }
}

/// Runs a transfer to its end on both sides. Panics where a received byte is wrong.
pub(crate) fn simulate(setup: &Setup) -> Report {
    Simulation::new(*setup).run()
}

/// The file.
pub(crate) fn content(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as u8
}

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn hits(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }
}

enum Machine {
    Sender(Sender),
    Receiver(Receiver),
}

struct End {
    machine: Option<Machine>,
    opening: Vec<u8>,
}

type Arrival = Reverse<(u64, u64, usize, Vec<u8>)>;

struct Simulation {
    setup: Setup,
    random: Random,
    now_ns: u64,
    /// When the link is free again, per direction: datagrams pass one after another.
    free_ns: [u64; 2],
    serial: u64,
    arrivals: BinaryHeap<Arrival>,
    /// Client and server.
    ends: [End; 2],
    received_bytes: u64,
    datagrams: u64,
    data_datagrams: u64,
    decided_ns: u64,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;
/// One datagram takes as long as 1.2 Gbit/s would for 1500 bytes.
const DATAGRAM_NS: u64 = 10_000;

impl Simulation {
    fn new(setup: Setup) -> Simulation {
        let mut opening = Vec::new();
        emit_request(&mut opening, setup.operation, b"file", Mode::Octet, &setup.asked);
        let machine = match setup.operation {
            Operation::Read => Machine::Receiver(Receiver::client(setup.asked, setup.timing, 0)),
            Operation::Write => Machine::Sender(Sender::client(setup.asked, setup.length, setup.timing, 0)),
        };
        Simulation {
            setup,
            random: Random(setup.seed),
            now_ns: 0,
            free_ns: [0; 2],
            serial: 0,
            arrivals: BinaryHeap::new(),
            ends: [End { machine: Some(machine), opening }, End { machine: None, opening: Vec::new() }],
            received_bytes: 0,
            datagrams: 0,
            data_datagrams: 0,
            decided_ns: 0,
        }
    }

    fn run(mut self) -> Report {
        self.drain(CLIENT);
        for _ in 0..STEPS_MAX {
            let arrival_ns = self.arrivals.peek().map(|Reverse((at_ns, ..))| *at_ns);
            let timer = [CLIENT, SERVER]
                .into_iter()
                .filter_map(|end| Some((self.ends[end].deadline_ns()?, end)))
                .min();
            match (arrival_ns, timer) {
                (Some(at_ns), timer) if timer.is_none_or(|(deadline_ns, _)| at_ns <= deadline_ns) => {
                    self.deliver()
                }
                (_, Some((deadline_ns, end))) => {
                    self.now_ns = deadline_ns;
                    self.ends[end].handle_timeout(deadline_ns);
                    self.drain(end);
                }
                _ => return self.report(),
            }
        }
        panic!("the transfer does not end: {:?}", self.setup);
    }

    fn deliver(&mut self) {
        let Some(Reverse((at_ns, _, end, bytes))) = self.arrivals.pop() else { return };
        self.now_ns = at_ns;
        let packet =
            Packet::parse(&bytes).unwrap_or_else(|malformed| panic!("our own datagram is {malformed}"));
        if end == SERVER && self.ends[SERVER].machine.is_none() {
            self.admit(&packet);
        } else {
            self.handle(end, &packet);
        }
        self.drain(end);
    }

    /// What a server does with a request.
    fn admit(&mut self, packet: &Packet<'_>) {
        let Packet::Request(request) = packet else { panic!("{packet:?} before a request") };
        let asked = Options::from_list(request.options);
        let length = if request.operation == Operation::Read { Some(self.setup.length) } else { asked.tsize };
        let granted = negotiate(&asked, &self.setup.limits, length);
        let agreed = Agreed::from(&granted);
        let server = &mut self.ends[SERVER];
        emit_oack(&mut server.opening, &granted);
        if granted.is_empty() {
            server.opening = vec![0; HEADER_LEN];
            emit_ack(&mut server.opening, 0);
        }
        server.machine = Some(match request.operation {
            Operation::Read => {
                let oack = !granted.is_empty();
                Machine::Sender(Sender::server(
                    agreed,
                    oack,
                    self.setup.length,
                    self.setup.timing,
                    self.now_ns,
                ))
            }
            Operation::Write => Machine::Receiver(Receiver::server(agreed, self.setup.timing, self.now_ns)),
        });
    }

    fn handle(&mut self, end: usize, packet: &Packet<'_>) {
        match &mut self.ends[end].machine {
            Some(Machine::Sender(sender)) => {
                sender.handle_packet(self.now_ns, packet);
                if sender.outcome().is_some() && self.decided_ns == 0 {
                    self.decided_ns = self.now_ns;
                }
            }
            Some(Machine::Receiver(receiver)) => {
                if let Some(block) = receiver.handle_packet(self.now_ns, packet) {
                    assert_eq!(block.offset, self.received_bytes);
                    for (offset, &byte) in (block.offset..).zip(block.payload) {
                        assert_eq!(byte, content(offset), "byte {offset}");
                    }
                    self.received_bytes += block.payload.len() as u64;
                }
            }
            None => {}
        }
    }

    fn drain(&mut self, end: usize) {
        while let Some(transmit) = self.ends[end].poll_transmit(self.now_ns) {
            let bytes = match transmit {
                Transmit::Opening => self.ends[end].opening.clone(),
                Transmit::Data { block, offset, len, .. } => {
                    self.data_datagrams += 1;
                    let mut bytes = vec![0; HEADER_LEN];
                    emit_data_header(&mut bytes, block);
                    bytes.extend((offset..).take(len).map(content));
                    bytes
                }
                Transmit::Ack { block, .. } => {
                    let mut bytes = vec![0; HEADER_LEN];
                    emit_ack(&mut bytes, block);
                    bytes
                }
                Transmit::Error { code, message } => {
                    let mut bytes = vec![0; 128];
                    let len = emit_error(&mut bytes, code, message);
                    bytes.truncate(len);
                    bytes
                }
            };
            self.send(1 - end, bytes);
        }
    }

    fn send(&mut self, to: usize, bytes: Vec<u8>) {
        let link = self.setup.link;
        let fault = link.fault.filter(|(number, _)| *number == self.datagrams).map(|(_, fault)| fault);
        self.datagrams += 1;
        self.free_ns[to] = self.free_ns[to].max(self.now_ns) + DATAGRAM_NS;
        if let Some((lost, times @ 1..)) = link.data_lost
            && matches!(Packet::parse(&bytes), Ok(Packet::Data { block, .. }) if block == lost)
        {
            self.setup.link.data_lost = Some((lost, times - 1));
            return;
        }
        let dark = (link.blackout_ns.0..link.blackout_ns.1).contains(&self.now_ns);
        if dark || fault == Some(Fault::Lost) || self.random.hits(link.loss) {
            return;
        }
        let is_doubled = fault == Some(Fault::Doubled) || self.random.hits(link.duplicate);
        for _ in 0..1 + u64::from(is_doubled) {
            let late_ns = match fault {
                Some(Fault::Late(late_ns)) => late_ns,
                _ if self.random.hits(link.reorder) => self.random.next() % (10 * DATAGRAM_NS),
                _ => 0,
            };
            self.serial += 1;
            let at_ns = self.free_ns[to] + link.delay_ns + late_ns;
            self.arrivals.push(Reverse((at_ns, self.serial, to, bytes.clone())));
        }
    }

    fn report(self) -> Report {
        let mut report = Report {
            sender: None,
            receiver: None,
            sender_counts: Counts::default(),
            receiver_counts: Counts::default(),
            received_bytes: self.received_bytes,
            duration_ns: self.decided_ns,
            datagrams: self.datagrams,
            data_datagrams: self.data_datagrams,
            agreed: None,
        };
        for end in self.ends {
            match end.machine {
                Some(Machine::Sender(sender)) => {
                    assert!(sender.is_finished());
                    report.sender = sender.outcome().cloned();
                    report.sender_counts = *sender.counts();
                    report.agreed = Some(*sender.agreed());
                }
                Some(Machine::Receiver(receiver)) => {
                    assert!(receiver.is_finished());
                    report.receiver = receiver.outcome().cloned();
                    report.receiver_counts = *receiver.counts();
                }
                None => {}
            }
        }
        report
    }
}

impl End {
    fn deadline_ns(&self) -> Option<u64> {
        match self.machine.as_ref()? {
            Machine::Sender(sender) => sender.deadline_ns(),
            Machine::Receiver(receiver) => receiver.deadline_ns(),
        }
    }

    fn handle_timeout(&mut self, now_ns: u64) {
        match &mut self.machine {
            Some(Machine::Sender(sender)) => sender.handle_timeout(now_ns),
            Some(Machine::Receiver(receiver)) => receiver.handle_timeout(now_ns),
            None => {}
        }
    }

    fn poll_transmit(&mut self, now_ns: u64) -> Option<Transmit> {
        match self.machine.as_mut()? {
            Machine::Sender(sender) => sender.poll_transmit(now_ns),
            Machine::Receiver(receiver) => receiver.poll_transmit(now_ns),
        }
    }
}
