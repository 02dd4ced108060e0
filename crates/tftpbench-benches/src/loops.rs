//! The loops themselves: packets and the two machines, timers, datagrams through the kernel's loopback, and file contents.
//! For the list of loops only.

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;

use tftpbench_load::contents::{Contents, Generated};
use tftpbench_net::{ReceiveBatch, SendBatch, Socket, SocketOptions, Timers};
use tftpbench_proto::{
    self as tftp, Agreed, Backoff, Mode, Operation, Options, Packet, Receiver, Sender, Timing, Transmit,
};

use crate::{Work, stuck};

// Packets and the two machines: no I/O, and a clock of our own.

/// As servers have it by default.
const TIMING: Timing = Timing {
    timeout_ns: 1_000_000_000,
    retries: 5,
    backoff: Backoff::Exponential,
    adaptive_floor_ns: Some(200_000_000),
    timeout_max_ns: 8_000_000_000,
};
/// From one block to the next: some 100,000 a second.
const STEP_NS: u64 = 10_000;
/// More than any run sends: a transfer that ends would not be the hot loop.
const LENGTH: u64 = 1 << 62;
const FILENAME: &[u8] = b"images/boot/vmlinuz";
const OPTIONS: Options = Options {
    blksize: Some(1428),
    windowsize: Some(16),
    timeout_s: Some(1),
    tsize: Some(1_048_576),
    rollover: None,
};

pub(crate) fn parse_data() -> io::Result<Work> {
    let mut datagram = vec![0; 4 + 512];
    tftp::emit_data_header(&mut datagram, 7);
    parse(datagram)
}

pub(crate) fn parse_ack() -> io::Result<Work> {
    let mut datagram = vec![0; 4];
    tftp::emit_ack(&mut datagram, 7);
    parse(datagram)
}

/// With the options read, as a server does.
pub(crate) fn parse_request() -> io::Result<Work> {
    let mut datagram = Vec::new();
    tftp::emit_request(&mut datagram, Operation::Read, FILENAME, Mode::Octet, &OPTIONS);
    repeat(move || {
        if let Ok(Packet::Request(request)) = Packet::parse(black_box(&datagram)) {
            black_box((request.filename, Options::from_list(request.options)));
        }
    })
}

pub(crate) fn emit_data_header() -> io::Result<Work> {
    let mut buf = [0; 4 + 512];
    repeat(move || tftp::emit_data_header(black_box(&mut buf), black_box(7)))
}

pub(crate) fn emit_ack() -> io::Result<Work> {
    let mut buf = [0; 4];
    repeat(move || {
        black_box(tftp::emit_ack(black_box(&mut buf), black_box(7)));
    })
}

pub(crate) fn emit_request() -> io::Result<Work> {
    let mut buf = Vec::with_capacity(512);
    repeat(move || {
        tftp::emit_request(&mut buf, Operation::Read, black_box(FILENAME), Mode::Octet, black_box(&OPTIONS));
        black_box(&buf);
    })
}

pub(crate) fn emit_oack() -> io::Result<Work> {
    let mut buf = Vec::with_capacity(512);
    repeat(move || {
        tftp::emit_oack(&mut buf, black_box(&OPTIONS));
        black_box(&buf);
    })
}

/// A block is one DATA; an ACK comes at the end of each window.
pub(crate) fn sender(windowsize: u16) -> io::Result<Work> {
    let agreed = Agreed { windowsize, ..Agreed::default() };
    let mut sender = Sender::server(agreed, false, LENGTH, TIMING, 0);
    let (mut now_ns, mut newest) = (0, 0);
    Ok(Box::new(move |blocks| {
        for _ in 0..blocks {
            now_ns += STEP_NS;
            let transmit = sender.poll_transmit(now_ns).or_else(|| {
                // Drained: what a caller looks at before it waits.
                black_box((sender.outcome(), sender.deadline_ns()));
                sender.handle_packet(now_ns, black_box(&Packet::Ack { block: newest }));
                sender.poll_transmit(now_ns)
            });
            let Some(Transmit::Data { block, .. }) = black_box(transmit) else {
                return Err(stuck("the sender"));
            };
            newest = block;
        }
        Ok(())
    }))
}

/// A block is one DATA taken in; an ACK goes out at the end of each window.
pub(crate) fn receiver(windowsize: u16) -> io::Result<Work> {
    let agreed = Agreed { windowsize, ..Agreed::default() };
    let mut receiver = Receiver::server(agreed, TIMING, 0);
    let (mut now_ns, mut block, payload) = (0, 0_u16, [0; 512]);
    Ok(Box::new(move |blocks| {
        for _ in 0..blocks {
            now_ns += STEP_NS;
            block = block.wrapping_add(1);
            let packet = Packet::Data { block, payload: &payload };
            let taken = receiver.handle_packet(now_ns, black_box(&packet));
            black_box(taken).ok_or_else(|| stuck("the receiver"))?;
            while let Some(transmit) = receiver.poll_transmit(now_ns) {
                black_box(transmit);
            }
            black_box((receiver.outcome(), receiver.deadline_ns()));
        }
        Ok(())
    }))
}

fn parse(datagram: Vec<u8>) -> io::Result<Work> {
    repeat(move || {
        let _ = black_box(Packet::parse(black_box(&datagram)));
    })
}

fn repeat(mut unit: impl FnMut() + 'static) -> io::Result<Work> {
    Ok(Box::new(move |units| {
        (0..units).for_each(|_| unit());
        Ok(())
    }))
}

// Timers, and datagrams through loopback.

/// A retransmission timer's first interval.
const INTERVAL_NS: u64 = 1_000_000_000;
/// A DATA of 512 bytes.
const DATAGRAM_BYTES: usize = 516;
const BATCH: usize = 64;
/// Loopback delivers before the send call returns, or a softirq later.
const WAIT_NS: u64 = 1_000_000_000;

/// While `entries` wait, spread over an interval, each that comes due is scheduled again. A unit is one timer's expiry
/// and scheduling; `expire` is called as a loop does that sleeps until `next_deadline_ns`.
pub(crate) fn timers(entries: u64) -> io::Result<Work> {
    let mut timers = Timers::new(0);
    for key in 0..entries {
        timers.schedule(INTERVAL_NS + key * INTERVAL_NS / entries, key);
    }
    let (mut now_ns, mut due) = (0, Vec::new());
    Ok(Box::new(move |units| {
        for _ in 0..units {
            while due.is_empty() {
                now_ns = timers.next_deadline_ns().ok_or_else(|| stuck("the wheel"))?;
                timers.expire(now_ns, &mut due);
            }
            let key = due.pop().ok_or_else(|| stuck("the wheel"))?;
            timers.schedule(now_ns + INTERVAL_NS, black_box(key));
        }
        Ok(())
    }))
}

/// One send call and one receive call each.
pub(crate) fn single_datagrams() -> io::Result<Work> {
    datagrams(1, false, |_| DATAGRAM_BYTES)
}

/// 64 in one sendmmsg(2) and one recvmmsg(2). Each is longer than the one before, so none joins a run.
pub(crate) fn batches() -> io::Result<Work> {
    datagrams(BATCH, false, |index| DATAGRAM_BYTES - BATCH + index)
}

/// 64 as one message that UDP_SEGMENT cuts, taken whole by UDP_GRO.
pub(crate) fn runs() -> io::Result<Work> {
    datagrams(BATCH, true, |_| DATAGRAM_BYTES)
}

/// Sends `batch` datagrams, then takes them in and looks at each. Their payload is not written: that is no work of the
/// batches. A unit is one datagram sent and received.
fn datagrams(batch: usize, receive_coalesced: bool, len: fn(usize) -> usize) -> io::Result<Work> {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let from = Socket::bind(here, &SocketOptions::default())?;
    let to = Socket::bind(here, &SocketOptions { receive_coalesced, ..SocketOptions::default() })?;
    let mut replies = SendBatch::new(batch, batch * DATAGRAM_BYTES);
    let mut arrivals = match receive_coalesced {
        true => ReceiveBatch::coalescing(batch, DATAGRAM_BYTES),
        false => ReceiveBatch::new(batch, DATAGRAM_BYTES),
    };
    let mut left = 0;
    Ok(Box::new(move |units| {
        for _ in 0..units {
            if left == 0 {
                for index in 0..batch {
                    replies.push(to.local_addr(), len(index), |room| room.len());
                }
                replies.flush(&from)?;
                take_in(&mut arrivals, &to, batch)?;
                left = batch;
            }
            left -= 1;
        }
        Ok(())
    }))
}

fn take_in(arrivals: &mut ReceiveBatch, socket: &Socket, datagrams: usize) -> io::Result<()> {
    let mut arrived = 0;
    while arrived < datagrams {
        match arrivals.receive_blocking(socket, WAIT_NS)? {
            0 => return Err(stuck("loopback")),
            more => arrived += more,
        }
        arrivals.iter().for_each(|datagram| {
            black_box(datagram);
        });
    }
    Ok(())
}

// Making and checking file contents.

/// A block of a file is made, as for a DATA that is sent.
pub(crate) fn fill(blksize: usize) -> io::Result<Work> {
    let (contents, mut block, mut offset) = (generated(), vec![0; blksize], 0);
    Ok(Box::new(move |blocks| {
        for _ in 0..blocks {
            contents.fill(offset, black_box(&mut block));
            offset += block.len() as u64;
        }
        Ok(())
    }))
}

/// A block that arrived is compared with what it must be, and is.
pub(crate) fn first_difference(blksize: usize) -> io::Result<Work> {
    compare(generated(), blksize)
}

/// The same against a file that the user gave.
pub(crate) fn first_difference_given(blksize: usize) -> io::Result<Work> {
    let mut file = vec![0; blksize];
    generated().fill(0, &mut file);
    compare(Contents::Given(file.into()), blksize)
}

fn generated() -> Contents {
    Contents::Generated(Generated::new(1, 1))
}

fn compare(contents: Contents, blksize: usize) -> io::Result<Work> {
    let mut block = vec![0; blksize];
    contents.fill(0, &mut block);
    Ok(Box::new(move |blocks| {
        for _ in 0..blocks {
            if contents.first_difference(black_box(0), black_box(&block)).is_some() {
                return Err(stuck("the comparison"));
            }
        }
        Ok(())
    }))
}
