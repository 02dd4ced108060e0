//! Packets and the two machines. No I/O, and a clock of our own. For the list of loops only.

use std::hint::black_box;
use std::io;

use tftpbench_proto::{
    self as tftp, Agreed, Backoff, Mode, Operation, Options, Packet, Receiver, Sender, Timing, Transmit,
};

use crate::{Work, stuck};

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
