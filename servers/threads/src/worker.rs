//! One transfer on its own thread and socket, from the first datagram to the last.
//! It must never outlive a stop by more than one slice of waiting and one of sending. The listener starts a transfer's
//! thread, or the thread of a transfer that the client has lost, which makes way for it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use tftpbench_net::clock::monotonic_ns;
use tftpbench_net::{Payload, ReceiveBatch, SendBatch, Socket};
use tftpbench_serve::{Admission, Counter, REPLY_BYTES_MAX, Repeated, Service, Transfer};

/// The longest wait in the kernel, so that a stop, or a peer that asks for something else, is noticed.
const WAIT_SLICE_NS: u64 = 200_000_000;

/// Datagrams to a system call, where the window has as many.
const BATCH: u16 = 64;

/// Runs of datagrams to a system call: each has room for 64 KiB, which stays taken once it was needed. What was sent in
/// a row comes as one or two.
const RUNS: u16 = 2;

/// Drives a transfer to its end. What it returns is to take its place: the client has lost this one, and asked again.
pub(crate) fn carry_out(
    transfer: Transfer,
    socket: &Socket,
    service: &Service,
    abort: &AtomicBool,
) -> Option<Transfer> {
    let messages = usize::from(transfer.windowsize().min(BATCH));
    let send = SendBatch::new(messages, messages * transfer.room_bytes());
    let receive = match transfer.awaits_windows() {
        true => ReceiveBatch::coalescing(messages.min(RUNS.into()), transfer.receive_bytes_max()),
        false => ReceiveBatch::new(messages, transfer.receive_bytes_max()),
    };
    let mut worker =
        Worker { transfer, socket, service, send, has_more: false, is_lost: false, tally: Tally::default() };
    worker.serve(receive, abort);
    let Worker { transfer, mut tally, .. } = worker;
    let next = restart(transfer, socket, service, &mut tally);
    service.count(Counter::UdpDrops, socket.drops());
    service.count(Counter::DatagramsIn, tally.datagrams_in);
    service.count(Counter::DatagramsOut, tally.datagrams_out);
    service.count(Counter::DatagramsUnsent, tally.datagrams_unsent);
    next
}

/// The client has lost the transfer, or has ended it and asks for the same once more before we knew: the next one
/// begins.
fn restart(transfer: Transfer, socket: &Socket, service: &Service, tally: &mut Tally) -> Option<Transfer> {
    if !transfer.is_asked_again() {
        return None;
    }
    let (peer, mut reply) = (transfer.peer(), [0; REPLY_BYTES_MAX]);
    match service.restart(transfer, monotonic_ns(), &mut reply) {
        Admission::Start(next) => return Some(next),
        Admission::Reply(length) if socket.send_to(&reply[..length], peer).is_ok() => {
            tally.datagrams_out += 1
        }
        _ => {}
    }
    None
}

/// Counted here and added up at the end: shared counters would travel between the cores with every datagram.
#[derive(Default)]
struct Tally {
    datagrams_in: u64,
    datagrams_out: u64,
    datagrams_unsent: u64,
}

struct Worker<'env> {
    transfer: Transfer,
    socket: &'env Socket,
    service: &'env Service,
    send: SendBatch,
    /// The transfer has more to send than one slice.
    has_more: bool,
    /// The client has lost the transfer, and asked for it again.
    is_lost: bool,
    tally: Tally,
}

impl Worker<'_> {
    fn serve(&mut self, mut receive: ReceiveBatch, abort: &AtomicBool) {
        let mut now_ns = monotonic_ns();
        self.drain(now_ns);
        self.flush();
        while !self.transfer.is_over() {
            if self.transfer.is_asked_again() {
                // What the client sent before that request is here by now, and may have ended the transfer: then the
                // request is a new one, which the listener answers.
                if self.catch_up(&mut receive).is_err() {
                    return;
                }
                now_ns = monotonic_ns();
                self.judge_repeated(now_ns);
            }
            if self.is_lost || self.transfer.is_over() {
                break;
            }
            let wait_ns = match self.has_more {
                true => 0,
                false => self.transfer.deadline_ns().unwrap_or(now_ns).saturating_sub(now_ns),
            };
            let received = receive.receive_blocking(self.socket, wait_ns.min(WAIT_SLICE_NS));
            now_ns = monotonic_ns();
            match received {
                Ok(count) => self.tally.datagrams_in += count as u64,
                // The socket is of no more use; the peer learns it by silence.
                Err(_) => return,
            }
            self.handle(&receive, now_ns);
            if abort.load(Ordering::Relaxed) {
                self.transfer.interrupt();
            }
            self.transfer.handle_timeout(now_ns);
            self.drain(now_ns);
            self.flush();
        }
        // The listener may have seen the peer's next request before we saw its last ACK, which is here by now.
        if !self.is_lost
            && !self.transfer.is_finished()
            && let Ok(count) = receive.receive(self.socket)
        {
            self.tally.datagrams_in += count as u64;
            self.handle(&receive, monotonic_ns());
            self.flush();
        }
    }

    /// Reads what has arrived, without waiting, until nothing is left or the transfer is over. More than a few batches
    /// are a flood, and wait their turn.
    fn catch_up(&mut self, receive: &mut ReceiveBatch) -> io::Result<()> {
        for _ in 0..BATCH {
            let count = receive.receive(self.socket)?;
            self.tally.datagrams_in += count as u64;
            self.handle(receive, monotonic_ns());
            self.flush();
            if count == 0 || self.transfer.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// Does what the transfer says about a copy of its request, if one came.
    fn judge_repeated(&mut self, now_ns: u64) {
        match self.transfer.take_repeated_request(now_ns) {
            Repeated::Ignored => {}
            Repeated::Answered => {
                self.drain(now_ns);
                self.flush();
            }
            Repeated::Restart => self.is_lost = true,
        }
    }

    fn handle(&mut self, received: &ReceiveBatch, now_ns: u64) {
        for datagram in received.iter() {
            if self.is_lost {
                return;
            }
            if datagram.peer == self.transfer.peer() {
                self.transfer.handle_datagram(now_ns, datagram.payload);
                self.drain(now_ns);
            } else if datagram.payload.is_empty() {
                // The listener's, or as good as that: it says only that a copy of the request may have come.
                self.judge_repeated(now_ns);
            } else {
                self.answer_stray(now_ns, datagram.peer, datagram.payload);
            }
        }
    }

    /// Queues what the transfer has to say, but no more than a slice: the socket and a stop are looked at in between.
    fn drain(&mut self, now_ns: u64) {
        let (peer, room) = (self.transfer.peer(), self.transfer.room_bytes());
        let mut budget = self.transfer.slice_datagrams();
        self.has_more = true;
        while self.has_more && budget > 0 {
            let pushed = self.send.push_with(None, peer, room, |datagram| {
                let next = self.transfer.poll_transmit(now_ns, datagram);
                self.has_more = next.is_some();
                let next = next.unwrap_or(Payload::NONE);
                budget = budget.saturating_sub(next.count());
                next
            });
            if !pushed {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if self.send.is_empty() {
            return;
        }
        // What could not be sent counts as lost; the protocol sends it again.
        if let Ok(flushed) = self.send.flush(self.socket) {
            self.tally.datagrams_out += flushed.sent as u64;
            self.tally.datagrams_unsent += flushed.unsent as u64;
        }
    }

    fn answer_stray(&mut self, now_ns: u64, peer: SocketAddr, datagram: &[u8]) {
        let mut reply = [0; REPLY_BYTES_MAX];
        let length = self.service.answer_stray(now_ns, peer, datagram, &mut reply);
        if length > 0 && self.socket.send_to(&reply[..length], peer).is_ok() {
            self.tally.datagrams_out += 1;
        }
    }
}
