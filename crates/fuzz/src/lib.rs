//! What is fuzzed: one function a target, from any bytes to a panic or none.
//!
//! Must never depend on a fuzzer. For the targets beside it and for the protocol crate's `fuzz_bodies` test.

use std::sync::Arc;

use tftpbench_proto::{
    Agreed, Backoff, Block, Decoded, ErrorCode, Habits, Limits, Nack, Options, Packet, Receiver, Repeated,
    Rollover, Sender, Timing, Transmit, accept, emit_oack, negotiate,
};

const TIMING: Timing = Timing {
    timeout_ns: 1_000_000_000,
    retries: 3,
    backoff: Backoff::Exponential,
    adaptive_floor_ns: Some(1_000_000),
    timeout_max_ns: 8_000_000_000,
};

/// Any datagram parses or not, and displays; its options survive an OACK of their own.
pub fn packet(input: &[u8]) {
    let displayed = Decoded(input).to_string();
    assert!(!displayed.contains(char::is_control), "{displayed:?}");
    let list = match Packet::parse(input) {
        Ok(Packet::Request(request)) => request.options,
        Ok(Packet::Oack(list)) => list,
        Ok(Packet::Data { payload, .. }) => return assert_eq!(payload.len() + 4, input.len()),
        _ => return,
    };
    let options = Options::from_list(list);
    let mut oack = Vec::new();
    emit_oack(&mut oack, &options);
    assert_eq!(options_of(&oack), Some(options));
}

/// What a server grants, the client accepts; what a client accepts is within its request.
pub fn negotiation(input: &[u8]) {
    let mut input = Input(input);
    let limits =
        Limits { blksize: input.u16(), windowsize: input.u16(), window_bytes: u32::from(input.u16()) << 4 };
    let length = (input.u8().is_multiple_of(2)).then(|| input.u64());
    let half = input.0.len() / 2;
    let oack = |words: &[u8]| [b"\0\x06", words].concat();
    let (asking, answering) = (oack(&input.0[..half]), oack(&input.0[half..]));
    let Some(asked) = options_of(&asking).filter(|asked| !asked.is_empty()) else { return };

    let granted = negotiate(&asked, &limits, length);
    let mut answer = Vec::new();
    emit_oack(&mut answer, &granted);
    let Ok(Packet::Oack(list)) = Packet::parse(&answer) else { panic!("we cannot read our own OACK") };
    assert_eq!(accept(&asked, list), Ok(granted));
    assert!(granted.blksize <= Some(limits.blksize) && granted.windowsize <= Some(limits.windowsize));
    let agreed = Agreed::from(&granted);
    let window_bytes = u32::from(agreed.windowsize) * u32::from(agreed.blksize);
    assert!(agreed.windowsize == 1 || window_bytes <= limits.window_bytes);

    if let Ok(Packet::Oack(list)) = Packet::parse(&answering)
        && let Ok(accepted) = accept(&asked, list)
    {
        assert!(accepted.blksize <= asked.blksize && accepted.windowsize <= asked.windowsize);
        assert!(accepted.timeout_s.is_none() || accepted.timeout_s == asked.timeout_s);
    }
}

/// No sequence of packets, time-outs and aborts makes a sender read outside its file or send more than a
/// window each.
pub fn sender(input: &[u8]) {
    let mut input = Input(input);
    let length = input.u64() % (1 << (input.u8() % 40));
    let agreed = agreed(&mut input);
    let mut now_ns = input.u64() / 2;
    let mut sender = match input.u8() % 4 {
        0 => Sender::client(Options::default(), length, TIMING, now_ns),
        3 => Sender::client_with(Options::default(), length, habits(&mut input), now_ns),
        role => Sender::server(agreed, role == 1, length, TIMING, now_ns),
    };
    while !input.0.is_empty() {
        let acked = sender.acked_blocks();
        now_ns += pause_ns(&mut input);
        match input.u8() % 8 {
            0 => sender.handle_timeout(now_ns),
            1 if input.u8() < 4 => sender.abort(ErrorCode::NOT_DEFINED, "abort"),
            2 => with_any_packet(&mut input, |packet| sender.handle_packet(now_ns, packet)),
            3 => sender.handle_packet(now_ns, &Packet::Ack { block: input.u16() }),
            4 => repeated(sender.handle_repeated_request(now_ns), sender.answered()),
            // Around where the transfer is, so that it goes on.
            _ => {
                let block = (acked as u16).wrapping_add(u16::from(input.u8() % 16)).wrapping_sub(2);
                sender.handle_packet(now_ns, &Packet::Ack { block });
            }
        }
        drain_sender(&mut sender, now_ns, length);
        assert!(sender.acked_blocks() >= acked && sender.acked_bytes() <= length);
        assert!(sender.is_finished() || sender.deadline_ns().is_some());
    }
}

/// No sequence of packets, time-outs and aborts makes a receiver give out a byte twice or answer with more
/// than one datagram.
pub fn receiver(input: &[u8]) {
    let mut input = Input(input);
    let agreed = agreed(&mut input);
    let mut now_ns = input.u64() / 2;
    let mut receiver = match input.u8() % 3 {
        0 => Receiver::client(Options::default(), TIMING, now_ns),
        2 => {
            let asked =
                Options { blksize: Some(agreed.blksize.max(8)), windowsize: Some(8), ..Options::default() };
            Receiver::client_with(asked, habits(&mut input), now_ns)
        }
        _ => Receiver::server(agreed, TIMING, now_ns),
    };
    let full = vec![0; 65_464];
    while !input.0.is_empty() {
        let before = receiver.received_bytes();
        let mut taken = None;
        now_ns += pause_ns(&mut input);
        match input.u8() % 8 {
            0 => receiver.handle_timeout(now_ns),
            1 if input.u8() < 4 => receiver.abort(ErrorCode::DISK_FULL, "abort"),
            2 => with_any_packet(&mut input, |packet| {
                taken = receiver.handle_packet(now_ns, packet).map(range)
            }),
            3 => repeated(receiver.handle_repeated_request(now_ns), receiver.answered()),
            // Around where the transfer is, and mostly full blocks, so that it goes on.
            _ => {
                let near = u16::from(input.u8() % 16);
                let block = (receiver.received_blocks() as u16).wrapping_add(near).wrapping_sub(2);
                let short = usize::from(input.u8() == 0);
                let payload = &full[..usize::from(receiver.agreed().blksize) - short];
                taken = receiver.handle_packet(now_ns, &Packet::Data { block, payload }).map(range);
            }
        }
        assert_eq!(taken.unwrap_or((before, before)), (before, receiver.received_bytes()));
        drain_receiver(&mut receiver, now_ns);
        assert!(receiver.is_finished() || receiver.deadline_ns().is_some());
    }
}

fn drain_sender(sender: &mut Sender, now_ns: u64, length: u64) {
    let Agreed { blksize, windowsize, .. } = *sender.agreed();
    let mut sent = 0;
    while let Some(transmit) = sender.poll_transmit(now_ns) {
        // Now one by one, now in runs.
        sent += 1 + sender.poll_run(now_ns, now_ns % 4);
        assert!(sent <= u64::from(windowsize), "more than a window");
        if let Transmit::Data { offset, len, .. } = transmit {
            assert_eq!(len as u64, u64::from(blksize).min(length - offset));
        }
    }
}

/// A transfer begins anew only where its client has been there.
fn repeated(judged: Repeated, answered: bool) {
    assert!(judged != if answered { Repeated::Answered } else { Repeated::Restart });
}

fn drain_receiver(receiver: &mut Receiver, now_ns: u64) {
    let sent = std::iter::from_fn(|| receiver.poll_transmit(now_ns)).count();
    assert!(sent <= 1, "{sent} answers");
}

fn agreed(input: &mut Input<'_>) -> Agreed {
    let rollover = if input.u8().is_multiple_of(2) { Rollover::Zero } else { Rollover::One };
    // Any values, since a caller may make a mistake, but no windows that take a fuzzer minutes.
    Agreed { blksize: input.u16(), windowsize: input.u16() % 256, timeout_s: None, rollover }
}

fn habits(input: &mut Input<'_>) -> Arc<Habits> {
    let mut waits = || (0..input.u8() % 4).map(|_| u64::from(input.u16()) << 14).collect();
    let (opening_waits_ns, waits_ns) = (waits(), waits());
    let nack = [Nack::Gap, Nack::Block, Nack::Nothing][usize::from(input.u8() % 3)];
    Arc::new(Habits { opening_waits_ns, waits_ns, nack, asks_others: input.u8().is_multiple_of(2) })
}

fn pause_ns(input: &mut Input<'_>) -> u64 {
    1 << (input.u8() % 36)
}

fn with_any_packet(input: &mut Input<'_>, mut handle: impl FnMut(&Packet<'_>)) {
    let len = usize::from(input.u8()).min(input.0.len());
    let (datagram, rest) = input.0.split_at(len);
    input.0 = rest;
    if let Ok(packet) = Packet::parse(datagram) {
        handle(&packet);
    }
}

fn range(block: Block<'_>) -> (u64, u64) {
    (block.offset, block.offset + block.payload.len() as u64)
}

fn options_of(oack: &[u8]) -> Option<Options> {
    match Packet::parse(oack) {
        Ok(Packet::Oack(list)) => Some(Options::from_list(list)),
        _ => None,
    }
}

/// Numbers from bytes; zeros once those have run out.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let len = N.min(self.0.len());
        bytes[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        bytes
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}
