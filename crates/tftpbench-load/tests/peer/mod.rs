//! A TFTP server for tests of the generator: one thread, one socket that answers every client, and faults to order.
//!
//! Serves and takes in `f-N`, whose contents are f(seed, N, offset). No sleeps, no fixed port; dropped, it stops.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tftpbench_load::contents::Generated;
use tftpbench_proto::{
    Agreed, Backoff, HEADER_LEN, Limits, Operation, Options, Packet, Receiver, Request, Sender, Timing,
    Transmit, emit_ack, emit_data_header, emit_error, emit_oack, negotiate,
};

use super::place::Place;

/// Seed of all contents.
pub(crate) const SEED: u64 = 5;
/// How often the peer looks at its timers.
const TICK: Duration = Duration::from_millis(2);

/// What the peer does beyond serving.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Loses one datagram in this many, of both directions.
    pub(crate) lose_one_in: Option<u64>,
    /// Loses the first ACK of this block in each transfer, for which the client has to care.
    pub(crate) lose_ack_of: Option<u16>,
    /// Loses the first ACK of each transfer's last block, and says nothing about this file before all others are over.
    pub(crate) lose_last_ack_until: Option<u64>,
    /// Sends a byte of this block wrong.
    pub(crate) falsify_block: Option<u16>,
    /// Answers every request first from another port, with a block of some older transfer.
    pub(crate) late_block_first: bool,
    /// Says nothing about this file.
    pub(crate) ignore_file: Option<u64>,
    /// Grants at most this; what lies below an option's range ignores the option.
    pub(crate) limits: Option<Limits>,
    /// Never sends again by itself.
    pub(crate) never_repeats: bool,
}

/// What the peer has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) options: Vec<Options>,
    pub(crate) acks: u64,
    pub(crate) blocks: u64,
    pub(crate) errors: u64,
    pub(crate) uploads: HashMap<String, Vec<u8>>,
}

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Peer {
    /// Serves files of `size` bytes.
    pub(crate) fn start(place: &Place, size: u64, faults: Faults) -> Peer {
        let (socket, other) = (place.bind(), place.bind());
        socket.set_read_timeout(Some(TICK)).unwrap();
        let (address, stop) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = thread::spawn(move || Serving::new((socket, other), size, faults).run(&stopped));
        Peer { address, stop, thread: Some(thread) }
    }

    pub(crate) fn finish(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

enum Machine {
    Send(Sender),
    Receive(Receiver),
}

struct Transfer {
    name: String,
    file: u64,
    machine: Machine,
    opening: Vec<u8>,
    ack_lost: bool,
}

struct Serving {
    socket: UdpSocket,
    other: UdpSocket,
    size: u64,
    faults: Faults,
    began: Instant,
    next_tick: Instant,
    datagrams: u64,
    transfers: HashMap<SocketAddr, Transfer>,
    /// A request that waits for the ends of all others.
    held: Option<(Operation, String, Options, SocketAddr)>,
    seen: Seen,
}

impl Serving {
    fn new((socket, other): (UdpSocket, UdpSocket), size: u64, faults: Faults) -> Serving {
        let (began, transfers, seen) = (Instant::now(), HashMap::new(), Seen::default());
        Serving {
            socket,
            other,
            size,
            faults,
            began,
            next_tick: began,
            datagrams: 0,
            transfers,
            held: None,
            seen,
        }
    }

    fn run(mut self, stop: &AtomicBool) -> Seen {
        let mut buf = vec![0; 65_536];
        loop {
            match self.socket.recv_from(&mut buf) {
                Ok((length, peer)) if !self.is_lost() => self.handle(&buf[..length], peer),
                // Nothing is left of what came before the stop.
                Err(_) if stop.load(Ordering::Relaxed) => return self.seen,
                _ => {}
            }
            if self.next_tick <= Instant::now() {
                self.fire_timers();
                self.next_tick = Instant::now() + TICK;
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// xorshift64* of the number of the datagram: the same ones every time, and no pattern.
    fn is_lost(&mut self) -> bool {
        self.datagrams += 1;
        let mut x = self.datagrams.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.faults
            .lose_one_in
            .is_some_and(|one_in| (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).is_multiple_of(one_in))
    }

    fn handle(&mut self, datagram: &[u8], peer: SocketAddr) {
        let now_ns = self.now_ns();
        let packet = Packet::parse(datagram).unwrap();
        match packet {
            Packet::Request(request)
                if self.transfers.get(&peer).is_none_or(|known| known.is_left_for(&request)) =>
            {
                let name = String::from_utf8(request.filename.to_vec()).unwrap();
                self.admit(request.operation, name, Options::from_list(request.options), peer);
            }
            Packet::Ack { block } => {
                self.seen.acks += 1;
                let is_last = u64::from(block) == self.size / 512 + 1;
                let lose = self.faults.lose_ack_of == Some(block)
                    || (is_last && self.faults.lose_last_ack_until.is_some());
                if let Some(transfer) = self.transfers.get_mut(&peer)
                    && lose
                    && !std::mem::replace(&mut transfer.ack_lost, true)
                {
                    return;
                }
            }
            Packet::Data { .. } => self.seen.blocks += 1,
            Packet::Error { .. } => self.seen.errors += 1,
            _ => {}
        }
        let Some(transfer) = self.transfers.get_mut(&peer) else { return };
        match &mut transfer.machine {
            Machine::Send(sender) => sender.handle_packet(now_ns, &packet),
            Machine::Receive(receiver) => {
                if let Some(block) = receiver.handle_packet(now_ns, &packet) {
                    let upload = self.seen.uploads.entry(transfer.name.clone()).or_default();
                    assert_eq!(block.offset, upload.len() as u64);
                    upload.extend_from_slice(block.payload);
                }
            }
        }
        self.drain(peer);
    }

    fn admit(&mut self, operation: Operation, name: String, asked: Options, peer: SocketAddr) {
        let file = name[2..].parse().unwrap();
        if self.faults.ignore_file == Some(file) {
            return;
        }
        let are_others_over =
            || self.transfers.values().filter(|known| known.is_over()).count() as u64 >= file;
        if self.faults.lose_last_ack_until == Some(file) && !are_others_over() {
            self.held = Some((operation, name, asked, peer));
            return;
        }
        if self.faults.late_block_first {
            let mut late = [0; HEADER_LEN + 512];
            emit_data_header(&mut late, 9);
            self.other.send_to(&late, peer).unwrap();
        }
        let length = if operation == Operation::Read { Some(self.size) } else { asked.tsize };
        let limits = self.faults.limits.unwrap_or(Limits::NONE);
        let granted = negotiate(&asked, &limits, length);
        self.seen.options.push(asked);
        let mut opening = Vec::new();
        match (granted.is_empty(), operation) {
            (false, _) => emit_oack(&mut opening, &granted),
            (true, Operation::Write) => {
                opening.resize(HEADER_LEN, 0);
                emit_ack(&mut opening, 0);
            }
            (true, Operation::Read) => {}
        }
        let (agreed, timing, now_ns) = (Agreed::from(&granted), self.timing(), self.now_ns());
        let machine = match operation {
            Operation::Read => {
                Machine::Send(Sender::server(agreed, !granted.is_empty(), self.size, timing, now_ns))
            }
            Operation::Write => Machine::Receive(Receiver::server(agreed, timing, now_ns)),
        };
        self.transfers.insert(peer, Transfer { name, file, machine, opening, ack_lost: false });
    }

    fn timing(&self) -> Timing {
        let never = self.faults.never_repeats || self.faults.lose_ack_of.is_some();
        let timeout_ns = if never { 600_000_000_000 } else { 20_000_000 };
        Timing {
            timeout_ns,
            retries: 1_000,
            backoff: Backoff::Constant,
            adaptive_floor_ns: None,
            timeout_max_ns: timeout_ns,
        }
    }

    fn fire_timers(&mut self) {
        if let Some((operation, name, asked, peer)) = self.held.take() {
            self.admit(operation, name, asked, peer);
            if self.held.is_none() {
                self.drain(peer);
            }
        }
        let now_ns = self.now_ns();
        let due = |transfer: &Transfer| transfer.deadline_ns().is_some_and(|at_ns| at_ns <= now_ns);
        let peers: Vec<_> =
            self.transfers.iter().filter(|(_, known)| due(known)).map(|(peer, _)| *peer).collect();
        for peer in peers {
            match &mut self.transfers.get_mut(&peer).unwrap().machine {
                Machine::Send(sender) => sender.handle_timeout(now_ns),
                // It dallies for ever: on a busy machine a real dallying time could be over before its sender's timer.
                Machine::Receive(receiver) if receiver.outcome().is_some() => {}
                Machine::Receive(receiver) => receiver.handle_timeout(now_ns),
            }
            self.drain(peer);
        }
    }

    fn drain(&mut self, peer: SocketAddr) {
        let now_ns = self.now_ns();
        let mut datagram = vec![0; 65_536];
        while let Some(transmit) = self.transfers.get_mut(&peer).unwrap().poll_transmit(now_ns) {
            let length = self.emit(&self.transfers[&peer], &transmit, &mut datagram);
            if !self.is_lost() {
                self.socket.send_to(&datagram[..length], peer).unwrap();
            }
        }
    }

    fn emit(&self, transfer: &Transfer, transmit: &Transmit, buf: &mut [u8]) -> usize {
        match *transmit {
            Transmit::Opening => {
                buf[..transfer.opening.len()].copy_from_slice(&transfer.opening);
                transfer.opening.len()
            }
            Transmit::Data { block, offset, len, .. } => {
                emit_data_header(buf, block);
                Generated::new(SEED, transfer.file).fill(offset, &mut buf[HEADER_LEN..HEADER_LEN + len]);
                if self.faults.falsify_block == Some(block) {
                    buf[HEADER_LEN] ^= 1;
                }
                HEADER_LEN + len
            }
            Transmit::Ack { block, .. } => emit_ack(buf, block),
            Transmit::Error { code, message } => emit_error(buf, code, message),
        }
    }
}

impl Transfer {
    /// The request is for another transfer. This one may be waiting for a last ACK that is lost.
    fn is_left_for(&self, request: &Request<'_>) -> bool {
        self.is_over() || self.name.as_bytes() != request.filename
    }

    fn is_over(&self) -> bool {
        match &self.machine {
            Machine::Send(sender) => sender.outcome().is_some(),
            Machine::Receive(receiver) => receiver.outcome().is_some(),
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        match &self.machine {
            Machine::Send(sender) => sender.deadline_ns(),
            Machine::Receive(receiver) => receiver.deadline_ns(),
        }
    }

    fn poll_transmit(&mut self, now_ns: u64) -> Option<Transmit> {
        match &mut self.machine {
            Machine::Send(sender) => sender.poll_transmit(now_ns),
            Machine::Receive(receiver) => receiver.poll_transmit(now_ns),
        }
    }
}
