//! Timers, and datagrams through the kernel's loopback. For the list of loops only.

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;

use tftpbench_net::{ReceiveBatch, SendBatch, Socket, SocketOptions, Timers};

use crate::{Work, stuck};

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
