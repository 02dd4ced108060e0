//! How many datagrams a second one thread moves to itself over loopback, by window, with and without UDP_SEGMENT and
//! UDP_GRO. For people who change the batches: `cargo run --release -p tftpbench-net --example windows`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example shows figures, and may panic")]

use tftpbench_net::{ReceiveBatch, SendBatch, Socket, SocketOptions, clock};

const RUN_NS: u64 = 500_000_000;
const DATAGRAM_BYTES: usize = 516;

/// How the datagrams of a window travel.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// One system call each.
    Single,
    /// As many as there are to a call, but each a message.
    Batched,
    /// One message for the kernel to cut.
    Segmented,
    /// The same, and it is taken whole.
    Coalesced,
}

fn main() {
    let ways = [Way::Single, Way::Batched, Way::Segmented, Way::Coalesced];
    println!("thousands of {DATAGRAM_BYTES}-byte datagrams a second, and how many times the first");
    println!("window {:>19} {:>19} {:>19} {:>19}", "single", "batched", "segmented", "coalesced");
    for window in [1, 4, 16, 64] {
        let rates = ways.map(|way| rate(window, way));
        let columns = rates.map(|rate| format!("{:>11.0} {:>6.1}x", rate / 1e3, rate / rates[0]));
        println!("{window:>6} {}", columns.join(" "));
    }
}

/// Datagrams a second.
fn rate(window: usize, way: Way) -> f64 {
    let address = "127.0.0.1:0".parse().unwrap();
    let coalesced = SocketOptions { receive_coalesced: true, ..SocketOptions::default() };
    let options = if matches!(way, Way::Coalesced) { coalesced } else { SocketOptions::default() };
    let sender = Socket::bind(address, &SocketOptions::default()).unwrap();
    let receiver = Socket::bind(address, &options).unwrap();
    let messages = if matches!(way, Way::Single) { 1 } else { 64 };
    let mut outgoing = SendBatch::new(messages, 64 * 1024);
    let mut incoming = ReceiveBatch::coalescing(messages, DATAGRAM_BYTES);
    let (start_ns, mut moved, mut sum) = (clock::monotonic_ns(), 0, 0);
    while clock::monotonic_ns() - start_ns < RUN_NS {
        for number in 0..window {
            // A run ends before a longer datagram.
            let shorter = if matches!(way, Way::Batched) { window - number } else { 0 };
            let write = |room: &mut [u8]| {
                room.fill(number as u8);
                room.len()
            };
            while !outgoing.push(receiver.local_addr(), DATAGRAM_BYTES - shorter, write) {
                outgoing.flush(&sender).unwrap();
            }
        }
        outgoing.flush(&sender).unwrap();
        let mut missing = window;
        while missing > 0 {
            missing -= incoming.receive(&receiver).unwrap();
            sum += incoming.iter().map(|datagram| usize::from(datagram.payload[9])).sum::<usize>();
        }
        moved += window;
    }
    std::hint::black_box(sum);
    moved as f64 * 1e9 / (clock::monotonic_ns() - start_ns) as f64
}
