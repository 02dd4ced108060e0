//! The fuzz targets' bodies on seeded random input, so that they hold without a fuzzer, too.

mod simulation;

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a crate of its own for the fuzzer")]
mod bodies;

use simulation::Random;

/// Half of the inputs are cut from words that the parsers know, which random bytes hardly ever are.
fn run(body: fn(&[u8]), inputs: usize) {
    const WORDS: [&[u8]; 13] = [
        b"\0\x01f\0octet\0",
        b"\0\x02f\0netascii\0",
        b"\0\x03\0\x01",
        b"\0\x04\0\0",
        b"\0\x05\0\x01no\0",
        b"\0\x06",
        b"blksize\0",
        b"WindowSize\0",
        b"timeout\0",
        b"tsize\0",
        b"1\x00",
        b"1428\0",
        b"\0\0\0",
    ];
    let mut random = Random(2347);
    for _ in 0..inputs {
        let mut input = Vec::new();
        for _ in 0..random.next() % 60 {
            if random.hits(500) {
                input.extend(WORDS[random.next() as usize % WORDS.len()]);
            } else {
                input.extend(&random.next().to_le_bytes()[..random.next() as usize % 8]);
            }
        }
        body(&input);
    }
}

#[test]
fn any_datagram_parses_or_not() {
    run(bodies::packet, 20_000);
}

#[test]
fn any_negotiation_stays_within_the_request() {
    run(bodies::negotiation, 20_000);
}

#[test]
fn no_sequence_of_events_breaks_a_sender() {
    run(bodies::sender, 10_000);
}

#[test]
fn no_sequence_of_events_breaks_a_receiver() {
    run(bodies::receiver, 10_000);
}
